"""The gRPC services. They turn messages into events and questions, and effects into messages; the rules are the core's.

server             listens; health checking and reflection; stops in order
policy             the one table of who may call what
auth               who calls
certificates       join tokens, certificates and trust as the contract shows them
guard              applies policy and auth to every call, and turns errors into statuses
errors             refusals of the core and the store -> geniehive.failures
streams            writes a mailbox to a stream while its messages are read
paging             pages of lists
views              hosts, services, gateways as the contract shows them
reports            what gateways report, between messages and `geniehive_control.usage`
usage_query        QueryUsage, likewise
profiles           roles and aliases, likewise
benchmarks         RecordBenchmarkSamples and ListBenchmarkSamples, likewise
node_service       NodeService: Enroll, Leave, Session
routing_service    RoutingService: WatchRoutes, ReportOutcomes, questions about routes
route_questions    MatchRoutes and ExplainRoute
registry_service   RegistryService: lists, gets, watches, usage, how the cluster is
admin_service      AdminService: roles, aliases, client keys, join tokens, ForgetHost, RevokeCredential
"""
