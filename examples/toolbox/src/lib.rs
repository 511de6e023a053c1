//! What the example pods run: one static program with a server, a sleeper and a few misbehaviours.
