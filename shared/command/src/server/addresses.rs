//! The number of connections of each client address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The connections of a server by client address.
pub struct Addresses {
    max: usize,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// Returns an empty count of at most `max` connections for each address.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, connections: Mutex::default() })
    }

    /// Counts a connection, until the returned value is dropped. Returns `None` if `address` has
    /// the maximum already.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        let network = network(address);
        let mut connections = self.connections();
        let count = connections.entry(network).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Admitted { addresses: Arc::clone(self), network })
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counted connection.
pub struct Admitted {
    addresses: Arc<Addresses>,
    network: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut connections = self.addresses.connections();
        if let Some(count) = connections.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.network);
            }
        }
    }
}

/// Returns what counts as one address: a host with IPv6 has a whole network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_the_maximum_of_connections() {
        let addresses = Addresses::new(2);
        let admit = |address: &str| addresses.admit(address.parse().expect("an address"));
        let first = admit("192.0.2.1").expect("room");
        let _second = admit("::ffff:192.0.2.1").expect("room");
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        drop(first);
        let _third = admit("192.0.2.1").expect("room again");
        let _v6 = [admit("2001:db8::1").expect("room"), admit("2001:db8::2").expect("room")];
        assert!(admit("2001:db8::ffff:3").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        assert_eq!(addresses.connections().len(), 2, "addresses without connections are not kept");
    }
}
