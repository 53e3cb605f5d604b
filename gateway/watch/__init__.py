"""The gRPC side of the gateway: what it lives on.

link          the way to control, and why there is none
stream        RoutingService.WatchRoutes: keeps the table current, reconnects by itself
certificates  this gateway's certificate and whom to believe, over that stream
kept          the table on disk, from which a gateway starts while control is away
outcomes      RoutingService.ReportOutcomes: what became of requests, and what is under way
answers       questions about the cluster, in a client's name
usage         RegistryService.QueryUsage, likewise
lookup        RoutingService.Resolve for names that the table lacks
"""
