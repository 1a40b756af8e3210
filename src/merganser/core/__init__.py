"""Protocol decisions as pure objects: no clock, randomness, logging, waiting or I/O."""
