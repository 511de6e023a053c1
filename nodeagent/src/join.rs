//! How a machine becomes a node: a key made here, a certificate request, and a one-time token.
