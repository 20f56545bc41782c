//! Clients who mean harm, by the thousand, against the real binary: whatever they do, an honest client is answered, and
//! the service's memory stays within bounds.

mod idle_connections;
mod floods;
mod harness;
mod slow_requests;
mod unread_responses;
