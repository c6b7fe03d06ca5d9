"""The pad store: slots of one fixed size that can be written again, and an index of what is in them.

key        the user key; a pad's secret and address              pure, but for the key file
header     a pad's authenticated header                          pure
index      what is where: operations, folded into a state        pure
proof      what a header says about a chunk                      pure
record     a version as bytes, for its record pads               pure
identity   `store.json`: what makes a directory a store          files
medium     what holds the pads: the interface                    pure
files      the pads as files                                     files
ledger     the index on disk: lock, journal, snapshot            files
recover    an index from the pads and the key alone
store      one open store: every decision about pads
reading    a version read back
opening    where a store is; the one in a directory

And behind a server: api (the calls), remote (the pads), remote_site (where the store and its index are).
"""
