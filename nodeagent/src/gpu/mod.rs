//! The GPUs of this machine: which there are, which can be given to pods, who holds them, and how a container gets them.
//!
//! | module | owns |
//! |---|---|
//! | `inventory` | what is known of each GPU, and why one is withheld (pure) |
//! | `health` | what of the answers speaks against one (pure) |
//! | `source` | where inventories come from: the trait, and recordings |
//! | `nvml` | NVIDIA's driver's own answers |
//! | `mig` | its answers about instances of GPUs that are cut |
//! | `amd` | AMD's GPUs, read from the kernel's files |
//! | `vulkan` | GPUs that only Vulkan knows |
//! | `apart` | short processes that drivers may crash or hold |
//! | `sysfs` | the kernel's files of any PCI device |
//! | `beside` | GPUs of all makers together |
//! | `watch` | the present inventory, looked at again and again |
//! | `ledger` | which container of which pod holds which GPU (pure) |
//! | `claims` | what the claims of a pod have here |
//! | `device_status` | what a claim's status says of its devices (pure) |
//! | `sharing` | which GPUs containers share, and how (pure) |
//! | `mps` | daemons of NVIDIA's that have containers share a GPU side by side |
//! | `cdi` | device specifications of the vendor, read from disk |
//! | `host` | what a container needs where there are none |
//! | `edits` | both, put into a container's configuration (pure) |
//! | `facts` | capacity, labels and condition of the Node (pure) |
//! | `slice` | the ResourceSlice (pure) |
//!
//! Invariant: a GPU is offered only if a container could be given it.
//!
//! Must never know: how pods come and go, the server.

pub mod amd;
mod apart;
mod beside;
pub mod cdi;
pub mod claims;
pub mod device_status;
pub mod edits;
pub mod facts;
pub mod health;
mod host;
pub mod inventory;
pub mod ledger;
mod mig;
pub mod mps;
mod nvml;
pub mod sharing;
pub mod slice;
pub mod source;
mod sysfs;
pub mod vulkan;
pub mod watch;

pub use self::{
    inventory::{Gpu, Inventory},
    sharing::Sharing,
    source::{Recording, Source, Unavailable, machine},
    vulkan::AskVulkan,
    watch::{Gpus, once},
};
