//! Who is at the other end, and how much of something each one holds.
//!
//! # Invariants
//! - This machine's own clients are not limited: a reverse proxy is one peer, and speaks for many.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// The other end of a connection, as far as limits are concerned: none for this machine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(Option<IpAddr>);

impl Peer {
    /// The peer at an address: an IPv4 address, or the /64 that one IPv6 customer has.
    pub fn of(address: IpAddr) -> Peer {
        match address.to_canonical() {
            IpAddr::V4(it) if it.is_loopback() => Peer(None),
            IpAddr::V6(it) if it.is_loopback() => Peer(None),
            IpAddr::V6(it) => Peer(Some(IpAddr::V6(Ipv6Addr::from_bits(it.to_bits() >> 64 << 64)))),
            it @ IpAddr::V4(_) => Peer(Some(it)),
        }
    }

    /// A peer on this machine.
    pub fn here() -> Peer {
        Peer(None)
    }
}

/// How much each peer holds.
#[derive(Debug)]
pub struct Peers {
    most: u32,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

/// One of what a peer holds, until it is dropped.
#[derive(Debug)]
pub struct Guest {
    peers: Arc<Peers>,
    peer: Peer,
}

impl Peers {
    /// Each may hold so many.
    pub fn new(most: u32) -> Peers {
        Peers { most, counts: Mutex::default() }
    }

    /// Counts one more, unless the peer has too many.
    pub fn admit(self: &Arc<Peers>, peer: Peer) -> Option<Guest> {
        if let Peer(Some(address)) = peer {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Guest { peers: Arc::clone(self), peer })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Peer(Some(peer)) = self.peer else { return };
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_this_machine_has_none() {
        const MOST: u32 = 5;
        let peers = Arc::new(Peers::new(MOST));
        let peer = |text: &str| Peer::of(text.parse().unwrap());
        let guests: Vec<_> =
            (0..MOST).map(|it| peers.admit(peer(&format!("2001:db8::{it:x}"))).expect("admitted")).collect();
        assert!(peers.admit(peer("2001:db8::ffff:1")).is_none());
        assert!(peers.admit(peer("2001:db8:0:1::1")).is_some());
        drop(guests);
        assert!(peers.counts.lock().unwrap().is_empty());
        for own in [peer("::ffff:127.0.0.1"), peer("127.8.0.1"), peer("::1"), Peer::here()] {
            let guests: Vec<_> = (0..2 * MOST).map(|_| peers.admit(own)).collect();
            assert!(guests.iter().all(Option::is_some));
        }
    }
}
