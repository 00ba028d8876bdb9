//! Replication between storage nodes: the follower's fetchers and the leader's service.
