"""Process plumbing that the three daemons share. Nothing in it knows of hosts or routes.

errors      the error whose text is all a user needs
config      YAML, environment and flags into validated settings
state       this user's state folder and the secrets kept in it
lifecycle   how a daemon starts, is told to stop, and ends
notices     what a daemon tells its supervisor
supervise   child processes: start, restart with back-off, stop in order
tasks       background tasks whose failure is never silent
backoff     delays between attempts
daemon      the command line that the daemons have alike
machine     what this machine calls itself
address     "HOST:PORT"
clock       time, so that tests can own it
logs        log lines
rotated     a file that is appended to and does not grow without end
flow        how much may wait in a connection
outbox      writes that leave together
http1       a lean HTTP/1.1 client
http_server listening, and what aiohttp's server lacks
http_answer an answer at that server, written by hand
http_head   which headers go further than one hop
"""
