//! Plans of Deployments, as text.
