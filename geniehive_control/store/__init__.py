"""What outlives control: SQLite in the state folder, or PostgreSQL by URL.

tables     the tables, as SQLAlchemy knows them
engine     addresses of databases, connections, and what their errors mean
migrate    brings a database to the newest revision, under a lock
profiles   statements about roles and aliases
usage      statements about usage: batches added, sums asked for
benchmarks samples added, dropped, asked for
database   the Store of `ports`: reads at start, writes in whole steps
"""
