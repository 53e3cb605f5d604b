"""The gRPC side of the gateway: what it lives on.

stream     RoutingService.WatchRoutes: keeps the table current, reconnects by itself
kept       the table on disk, from which a gateway starts while control is away
lookup     RoutingService.Resolve for names that the table lacks
"""
