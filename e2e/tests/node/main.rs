//! Nodes with real containers, through the whole product. One program, so that stories run beside each other: most wait for
//! something most of the time.

mod certificate;
mod containers;
mod crash;
mod in_cluster;
mod pods;
mod static_pods;
