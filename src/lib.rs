//! Passbook: an event-sourced banking microservice on Postgres.
//!
//! The rooms, in reading order: [`domain`] knows banking and no I/O; [`event_store`] knows streams, positions and
//! bytes, and no banking; [`application`] lets them meet in one loop; [`read_model`] keeps the tables that queries
//! read; [`audit`] shows the log and checks the books; [`copy`](mod@copy) makes a new log with more partitions of one; [`auth`]
//! knows who may do what; [`http`] is the way in, for programs and, by the files in `console/`, for people; [`relay`] is the
//! way out to other services; [`database`] brings Postgres; [`metrics`] counts; [`service`] wires it all.

pub mod application;
pub mod audit;
pub mod auth;
pub mod config;
pub mod copy;
pub mod database;
pub mod domain;
pub mod event_store;
pub mod http;
pub mod metrics;
pub mod read_model;
pub mod relay;
pub mod service;
pub mod telemetry;
pub mod timestamp;
