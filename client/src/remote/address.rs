//! Where a server is: `diptych://HOST:PORT/NAMESPACE`, `diptych+unix:/PATH/NAMESPACE`, `ssh://USER@HOST/PATH`.

use std::path::PathBuf;

/// The port of `diptych://` where none is named.
const PORT: u16 = 8040;
/// What the one repository is called that a server on the other end of ssh offers.
const ONLY: &str = "main";

/// A server and a namespace there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As it was given, for messages.
    pub location: String,
    /// How it is reached.
    pub route: Route,
    /// The namespace.
    pub namespace: String,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// TCP.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// Without TLS, which only loopback addresses are spoken to without.
        is_plain: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
    /// A program that ssh starts there.
    Ssh {
        /// USER@HOST, or HOST.
        destination: String,
        /// The port, if it is not ssh's own.
        port: Option<u16>,
        /// The repository there.
        path: String,
    },
}

impl Address {
    /// The address that a location names; none if it names another kind of place.
    pub fn parse(location: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = location.split_once(':')?;
        let parsed = match scheme {
            "diptych" => parse_tcp(rest, false),
            "diptych+plain" => parse_tcp(rest, true),
            "diptych+unix" => parse_unix(rest),
            "ssh" => parse_ssh(rest),
            _ => return None,
        };
        Some(match parsed {
            Ok((route, namespace)) => Ok(Self { location: location.to_owned(), route, namespace }),
            Err(what) => Err(format!("{location}: {what}")),
        })
    }
}

type Parsed = Result<(Route, String), String>;

fn parse_tcp(rest: &str, is_plain: bool) -> Parsed {
    let form = || format!("write diptych://HOST:PORT/NAMESPACE (without PORT it is {PORT})");
    let (authority, namespace) =
        rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or_else(form)?;
    let (host, port) = split_port(authority)?;
    let namespace = namespace.trim_end_matches('/');
    if host.is_empty() || namespace.is_empty() || namespace.contains('/') {
        return Err(form());
    }
    let route = Route::Tcp { host: host.to_owned(), port: port.unwrap_or(PORT), is_plain };
    if let Route::Tcp { host, is_plain: true, .. } = &route
        && host != "localhost"
        && !host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    {
        return Err("without TLS only a server on this machine is spoken to; write diptych://".to_owned());
    }
    Ok((route, namespace.to_owned()))
}

fn parse_unix(rest: &str) -> Parsed {
    let form = || "write diptych+unix:/PATH/OF/SOCKET/NAMESPACE".to_owned();
    let (path, namespace) = rest.trim_end_matches('/').rsplit_once('/').ok_or_else(form)?;
    if path.is_empty() || namespace.is_empty() {
        return Err(form());
    }
    Ok((Route::Unix(path.into()), namespace.to_owned()))
}

fn parse_ssh(rest: &str) -> Parsed {
    let form =
        || "write ssh://USER@HOST/PATH, or ssh://USER@HOST/~/PATH for one in the home directory".to_owned();
    let (authority, path) = rest.strip_prefix("//").and_then(|rest| rest.split_once('/')).ok_or_else(form)?;
    let (destination, port) = split_port(authority)?;
    // What begins like an option would be one to ssh.
    if destination.is_empty() || destination.starts_with('-') || path.is_empty() {
        return Err(form());
    }
    let path = match path.strip_prefix("~/") {
        Some(below) if !below.is_empty() => below.to_owned(),
        Some(_) => return Err(form()),
        None => format!("/{path}"),
    };
    Ok((Route::Ssh { destination: destination.to_owned(), port, path }, ONLY.to_owned()))
}

/// Host and port; an IPv6 address stands in brackets.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the bracket of the address is not closed")?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map(|port| port.parse().map_err(|_| format!("{port:?} is no port"))).transpose()?;
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parsed(location: &str) -> (Route, String) {
        let address = Address::parse(location).unwrap().unwrap();
        (address.route, address.namespace)
    }

    fn tcp(host: &str, port: u16, is_plain: bool) -> Route {
        Route::Tcp { host: host.to_owned(), port, is_plain }
    }

    #[test]
    fn servers_are_found_in_locations() {
        let main = || "main".to_owned();
        assert_eq!(parsed("diptych://h/main"), (tcp("h", 8040, false), main()));
        assert_eq!(parsed("diptych://h:1/main/"), (tcp("h", 1, false), main()));
        assert_eq!(parsed("diptych://[::1]:2/main"), (tcp("::1", 2, false), main()));
        assert_eq!(parsed("diptych+plain://127.0.0.1:3/main"), (tcp("127.0.0.1", 3, true), main()));
        assert_eq!(parsed("diptych+unix:/run/d.sock/main"), (Route::Unix("/run/d.sock".into()), main()));
        let ssh =
            |port, path: &str| Route::Ssh { destination: "u@h".to_owned(), port, path: path.to_owned() };
        assert_eq!(parsed("ssh://u@h/a/b"), (ssh(None, "/a/b"), main()));
        assert_eq!(parsed("ssh://u@h:22/~/b"), (ssh(Some(22), "b"), main()));
    }

    #[test]
    fn what_is_no_address_is_told() {
        for location in [
            "diptych:x",
            "diptych://h",
            "diptych://h/",
            "diptych://h:x/main",
            "diptych://h/a/b",
            "diptych+plain://h/main",
            "diptych+unix:main",
            "ssh://h",
            "ssh://-oProxyCommand=x/y",
            "ssh://h/~/",
        ] {
            let error = Address::parse(location).unwrap().unwrap_err();
            assert!(error.starts_with(location), "{error}");
        }
        assert!(Address::parse("/a/b").is_none() && Address::parse("s3://x").is_none());
    }
}
