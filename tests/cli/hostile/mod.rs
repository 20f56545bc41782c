//! Thousands of abusive connections against the real binary. An honest client must still be served, and the memory of the
//! service must stay within its limit.

mod floods;
mod greedy_client;
mod harness;
mod idle_connections;
mod slow_requests;
mod static_files;
mod unread_responses;
mod unread_results;
