//! A repository offered over HTTP/2.
//!
//! The server keeps the same files that a repository in a directory has. What it adds is who may do what
//! ([`tokens`], [`access`]), and that nothing is kept that does not stand every comparison ([`arrive`]); and pages for people. Reading order: those,
//! then [`server`] (what all requests share), [`routes`] (requests to answers), [`listen`] (connections).
//!
//! Spec: protocol.md.

#![forbid(unsafe_code)]

pub mod access;
mod activity;
pub mod arrive;
pub mod audit;
pub mod jobs;
pub mod limit;
pub mod listen;
pub mod metrics;
pub mod namespace;
mod openapi;
mod pages;
pub mod problem;
pub mod records;
pub mod routes;
pub mod server;
pub mod share;
pub mod tls;
pub mod tokens;

pub use listen::{Listen, Listening, serve, serve_stdio};
pub use namespace::{Namespace, Namespaces};
pub use server::Server;
pub use tokens::{NewToken, Rights, Token, TokenStore};
