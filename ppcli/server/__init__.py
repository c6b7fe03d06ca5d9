"""`ppcli serve`: a PutPlace server over a directory, which holds pads too. Needs the extra `server`; only `cli` imports
this package.

app       the ASGI application: gate, bounds and routes around one `Depot`
depot     everything that the routes share: database, files, sessions, users
routes_*  HTTP alone: parse, call the domain, answer
sessions, receiving, completing, entries, users     the domain; no web framework in there
pads, pad_receiving                                 the same for pads
database, content, pad_files                        the only modules that touch the disk
"""
