//! Load generator for any compatible server.
