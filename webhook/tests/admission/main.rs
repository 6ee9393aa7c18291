//! Admission in process: golden cases, a table of drifts, and random pods, each judged by code that shares nothing with the
//! webhook's own. `GOLDEN=write` rewrites the expected patches; review what it wrote.

#[cfg(test)]
mod api_server;
#[cfg(test)]
mod case;
#[cfg(test)]
mod drifts;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod large;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod voucher;
