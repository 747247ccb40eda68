//! Where plugins may connect to: first the origin of a request against what was granted, then each address that the name
//! stands for, so that a name that is granted does not open what lies behind another address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use super::allowed::Reach;
use super::origin::Origin;

/// Finds the addresses of a name. Exchanged in tests.
pub(super) type Resolve = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// Asks the system.
pub(super) fn system_resolver(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Whether a request may be made at all; the reason if not.
pub(super) fn check_request<'a>(
    origins: &'a [Reach],
    method: &str,
    origin: &Origin,
) -> Result<&'a Reach, String> {
    let Some(reach) = origins.iter().find(|reach| reach.origin == *origin) else {
        return Err(format!("no requests to {origin} are granted"));
    };
    if reach.methods.is_empty() || reach.methods.iter().any(|granted| granted == method) {
        return Ok(reach);
    }
    let granted = reach.methods.join(", ");
    Err(format!(
        "{method} to {origin} is not granted, only {granted}"
    ))
}

/// The addresses of an origin that may be connected to; the reason if there are none.
///
/// An address that was granted as such is connected to, also a private one or loopback. A name that the *user* chose (a
/// setting of the plugin) may stand for a private address; one that the plugin's author chose may not, because its owner
/// could point it into the user's network. Link-local addresses, where clouds keep their credentials, are never reached.
pub(super) fn addresses(reach: &Reach, resolve: Resolve) -> Result<Vec<SocketAddr>, String> {
    let origin = &reach.origin;
    if let Some(address) = origin.address() {
        let address = canonical(address);
        return match never(address) {
            Some(reason) => Err(format!("{address} is {reason}")),
            None => Ok(vec![SocketAddr::new(address, origin.port)]),
        };
    }
    let found = resolve(&origin.host, origin.port)
        .map_err(|error| format!("the name {} was not found: {error}", origin.host))?;
    let mut allowed = Vec::new();
    let mut refused = None;
    for found in found {
        let address = canonical(found.ip());
        let reason = never(address).or_else(|| {
            let local = local(address)?;
            let is_own_name = origin.host == "localhost" && address.is_loopback();
            (!reach.chosen_by_user && !is_own_name).then_some(local)
        });
        match reason {
            None => allowed.push(SocketAddr::new(address, origin.port)),
            Some(reason) => {
                refused = Some(format!(
                    "{} stands for {address}, which is {reason}",
                    origin.host
                ))
            }
        }
    }
    // One bad address among good ones is how rebinding looks.
    match refused {
        Some(reason) => Err(reason),
        None if allowed.is_empty() => Err(format!("the name {} has no address", origin.host)),
        None => Ok(allowed),
    }
}

/// An IPv4 address that is written as IPv6 is one all the same.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => embedded(six).map_or(address, IpAddr::V4),
    }
}

/// IPv4 inside IPv6: mapped, compatible, and the well-known prefix of NAT64.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(four) = address.to_ipv4_mapped() {
        return Some(four);
    }
    let segments = address.segments();
    let is_nat64 = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let is_compatible = segments[..6] == [0; 6] && segments[6] != 0;
    let [.., a, b, c, d] = address.octets();
    (is_nat64 || is_compatible).then_some(Ipv4Addr::new(a, b, c, d))
}

/// Why an address is never connected to.
fn never(address: IpAddr) -> Option<&'static str> {
    let (unspecified, link_local, many) = match address {
        IpAddr::V4(four) => (
            four.octets()[0] == 0,
            four.is_link_local(),
            four.is_multicast() || four.is_broadcast(),
        ),
        IpAddr::V6(six) => (
            six.is_unspecified(),
            six.is_unicast_link_local(),
            six.is_multicast(),
        ),
    };
    if unspecified {
        Some("no address of a host")
    } else if link_local {
        Some("link-local")
    } else if many {
        Some("not the address of one host")
    } else {
        None
    }
}

/// Why an address is not reached by a name that the plugin's author chose.
fn local(address: IpAddr) -> Option<&'static str> {
    let is_private = match address {
        IpAddr::V4(four) => {
            let [a, b, ..] = four.octets();
            four.is_private()
                || a == 100 && (64..128).contains(&b)
                || a == 198 && (18..20).contains(&b)
                || a >= 240
        }
        IpAddr::V6(six) => six.is_unique_local(),
    };
    if address.is_loopback() {
        Some("this machine")
    } else if is_private {
        Some("private")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(origin: &str, chosen_by_user: bool) -> Reach {
        Reach {
            origin: origin.parse().expect("an origin"),
            methods: vec!["GET".to_owned()],
            chosen_by_user,
        }
    }

    #[test]
    fn only_granted_origins_and_methods_are_asked() {
        let origins = [
            reach("https://api.example.org", false),
            reach("http://127.0.0.1:5000", false),
        ];
        for (method, origin, allowed) in [
            ("GET", "https://api.example.org", true),
            ("POST", "https://api.example.org", false),
            ("GET", "http://api.example.org", false),
            ("GET", "https://api.example.org:8443", false),
            ("GET", "https://api.example.org.evil.org", false),
            ("GET", "http://127.0.0.1:5000", true),
            ("GET", "http://2130706433:5000", true),
            ("GET", "http://127.0.0.1:5001", false),
            ("GET", "http://localhost:5000", false),
            ("GET", "http://[::ffff:127.0.0.1]:5000", false),
        ] {
            let origin = Origin::of_url(origin).expect("an origin");
            assert_eq!(
                check_request(&origins, method, &origin).is_ok(),
                allowed,
                "{method} {origin}"
            );
        }
    }

    fn resolver(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: &[&str] = match host {
            "public.example" => &["203.0.114.7", "2606:2800::1"],
            "loop.example" => &["127.0.0.1"],
            "mapped.example" => &["::ffff:10.0.0.1"],
            "nat64.example" => &["64:ff9b::a9fe:a9fe"],
            "private.example" => &["192.168.1.5"],
            "shared.example" => &["100.64.0.1"],
            "unique.example" => &["fd00::1"],
            "metadata.example" => &["169.254.169.254"],
            "zero.example" => &["0.0.0.0"],
            "rebinding.example" => &["203.0.114.7", "127.0.0.1"],
            "localhost" => &["127.0.0.1", "::1"],
            _ => return Err(io::Error::other("no such name")),
        };
        Ok(addresses
            .iter()
            .map(|address| SocketAddr::new(address.parse().expect("an address"), port))
            .collect())
    }

    #[test]
    fn a_name_opens_only_what_its_kind_may_open() {
        for (host, by_author, by_user) in [
            ("public.example", true, true),
            ("localhost", true, true),
            ("loop.example", false, true),
            ("mapped.example", false, true),
            ("private.example", false, true),
            ("shared.example", false, true),
            ("unique.example", false, true),
            ("rebinding.example", false, true),
            ("metadata.example", false, false),
            ("nat64.example", false, false),
            ("zero.example", false, false),
            ("unknown.example", false, false),
        ] {
            for (chosen, allowed) in [(false, by_author), (true, by_user)] {
                let reach = reach(&format!("http://{host}"), chosen);
                let found = addresses(&reach, resolver);
                assert_eq!(found.is_ok(), allowed, "{host} {chosen}: {found:?}");
            }
        }
    }

    #[test]
    fn an_address_that_was_granted_is_reached_unless_it_is_nobodys() {
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("169.254.169.254", false),
            ("[::ffff:169.254.169.254]", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("[::]", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("[fe80::1]", false),
        ] {
            let found = addresses(&reach(&format!("http://{address}"), false), resolver);
            assert_eq!(found.is_ok(), allowed, "{address}: {found:?}");
        }
    }
}
