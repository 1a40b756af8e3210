"""Values that merge themselves: counters, sets, maps, registers, flags, sketches of how many are distinct, max and min.

All of them are causal rows (`core.causal_rows`): dotted cells and a context, and the merge of these is the merge of all
types. So nothing that replicates, repairs or purges rows knows of any of this; a type is a way to name cells (`types`),
what an operation makes of those that its coordinator has seen (`updates`), and what is read of them (`reading`).

An update is a *delta*: a small row, of the cells that it adds and of a context that says which cells these replace. It
is all that goes to the replicas, and they merge it. What an update did not see it does not touch: of an add and a
remove that did not know of one another, the add stays.

Counters cannot be told by dots alone, or they would grow with each increment; `counters` says how they are kept.

Source: Shapiro, Preguiça, Baquero, Zawirski 2011, "A comprehensive study of Convergent and Commutative Replicated Data
Types"; Almeida, Shoker, Baquero 2018, "Delta State Replicated Data Types" (causal CRDTs: dot stores and contexts);
Riak DT (maps whose fields are named by name and type).
"""
