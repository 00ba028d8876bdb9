//! Room on one volume: what is free, who may take it, what to delete and when to refuse.
