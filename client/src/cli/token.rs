//! `token`: who may come to a server.

use diptych_server::{NewToken, Rights, Token, TokenStore, namespace};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::serve::StateOptions;
use super::snapshots::show_time;
use crate::error::{Error, Result};
use crate::size::{parse_size, show_size};

/// Make, list and revoke the tokens with which clients come to a server on this machine.
#[derive(clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Example:
  diptych token create web1 --rights append --namespace main --expires 90d")]
pub struct Arguments {
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(clap::Subcommand)]
enum TokenVerb {
    Create(Create),
    List(List),
    Renew(Renew),
    Revoke(Revoke),
}

/// Make a token, and print it: it is shown this once.
///
/// Rights: `append` backs up, and sees of what is there only what it needs for that, and nothing of others; it removes
/// nothing and reads no contents. `read` sees and reads everything. `forget` forgets snapshots. `admin` may do everything.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  diptych token create web1 --rights append --namespace main --expires 90d
  diptych token create ann --rights append,read,forget --namespace main
  diptych token create web2 --rights append --namespace main --domain web   # shares chunks with others of that domain")]
struct Create {
    /// Words for people, by which it is recognized.
    #[arg(value_name = "NAME")]
    name: String,
    /// What it may do: read, append, forget, admin, with commas between them.
    #[arg(long, value_name = "RIGHTS", value_parser = Rights::parse)]
    rights: Rights,
    /// The namespace that it is for [default: all of them].
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Whose chunks it may use: those that tokens of the same domain have sent. They see each other's metadata, and can tell
    /// which contents the others have [default: a domain of its own].
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Bytes that it may have on the server.
    #[arg(long, value_name = "SIZE", value_parser = parse_above_zero)]
    quota: Option<u64>,
    /// Bytes that it may send, and fetch, in a second.
    #[arg(long, value_name = "SIZE", value_parser = parse_above_zero)]
    rate: Option<u64>,
    /// When it ends: in so many days (90d) or hours (12h).
    #[arg(long, value_name = "TIME", value_parser = parse_period)]
    expires: Option<SignedDuration>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    state: StateOptions,
}

/// List the tokens.
#[derive(clap::Args)]
#[command(after_help = "Example:
  diptych token list")]
struct List {
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    state: StateOptions,
}

/// Let a token be good for longer. It stays the same, and who has it finds what it has sent: a new one would not.
#[derive(clap::Args)]
#[command(after_help = "Example:
  diptych token renew 4f3a9c01 --expires 90d")]
struct Renew {
    /// Its id, as `token list` shows it.
    #[arg(value_name = "ID")]
    id: String,
    /// When it ends: in so many days (90d) or hours (12h) from now [default: never].
    #[arg(long, value_name = "TIME", value_parser = parse_period)]
    expires: Option<SignedDuration>,
    #[command(flatten)]
    state: StateOptions,
}

/// Revoke a token. A server that runs refuses it from the next request on.
#[derive(clap::Args)]
#[command(after_help = "Example:
  diptych token revoke 4f3a9c01")]
struct Revoke {
    /// Its id, as `token list` shows it.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    state: StateOptions,
}

fn parse_above_zero(text: &str) -> std::result::Result<u64, String> {
    match parse_size(text)? {
        0 => Err("leave it out for no limit".to_owned()),
        size => Ok(size),
    }
}

fn parse_period(text: &str) -> std::result::Result<SignedDuration, String> {
    let wrong = || format!("{text:?} is no period: write 90d or 12h");
    let (number, hours) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => (days, 24),
        (_, Some(hours)) => (hours, 1),
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(SignedDuration::from_hours(i64::from(number) * hours))
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    match &arguments.verb {
        TokenVerb::Create(create) => self::create(create),
        TokenVerb::List(list) => self::list(list),
        TokenVerb::Renew(renew) => self::renew(renew, common),
        TokenVerb::Revoke(revoke) => self::revoke(revoke, common),
    }
}

fn create(arguments: &Create) -> Result<Outcome> {
    for name in arguments.namespace.iter().chain(&arguments.domain) {
        if !namespace::is_name(name) {
            let what = "names are of the letters a to z, digits, '.', '_' and '-'";
            return Err(Error::Usage(format!("{name:?}: {what}")));
        }
    }
    let new = NewToken {
        name: arguments.name.clone(),
        namespace: arguments.namespace.clone(),
        domain: arguments.domain.clone(),
        rights: arguments.rights,
        quota: arguments.quota,
        rate: arguments.rate,
        expires: arguments.expires.map(|period| Timestamp::now() + period),
    };
    let (token, shown) = open(&arguments.state)?.create(new).map_err(failed)?;
    let line = match arguments.json.json {
        true => {
            let mut object = json_of(&token);
            object["token"] = shown.into();
            format!("{object}\n")
        }
        false => format!("{shown}\n"),
    };
    output::print(line.as_bytes())?;
    Ok(Outcome::Done)
}

fn list(arguments: &List) -> Result<Outcome> {
    let tokens = open(&arguments.state)?.list().map_err(failed)?;
    let mut out = Vec::new();
    let now = Timestamp::now();
    for token in &tokens {
        let line = match arguments.json.json {
            true => json_of(token).to_string(),
            false => {
                let state = match (token.revoked, token.expires) {
                    (true, _) => "revoked".to_owned(),
                    (false, Some(expires)) if expires <= now => "expired".to_owned(),
                    (false, Some(expires)) => format!("until {}", show_time(expires)),
                    (false, None) => "good".to_owned(),
                };
                let limit = |name: &str, bytes: Option<u64>| {
                    bytes.map(|bytes| format!(", {name} {}", show_size(bytes))).unwrap_or_default()
                };
                let limits = limit("quota", token.quota) + &limit("rate", token.rate);
                format!(
                    "{}  {:<20}  {:<12}  {:<12}  {:<24}  {state}{limits}",
                    token.id,
                    crate::names::tame(&token.name),
                    token.namespace.as_deref().unwrap_or("*"),
                    token.domain,
                    token.rights.words().join(","),
                )
            }
        };
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    output::print(&out)?;
    Ok(Outcome::Done)
}

fn renew(arguments: &Renew, common: &Common) -> Result<Outcome> {
    let expires = arguments.expires.map(|period| Timestamp::now() + period);
    if !open(&arguments.state)?.renew(&arguments.id, expires).map_err(failed)? {
        return Err(unknown(&arguments.id));
    }
    if !common.quiet {
        let until = expires.map_or("for ever".to_owned(), |time| format!("until {}", show_time(time)));
        output::say(&format!("token {} is good {until}", arguments.id));
    }
    Ok(Outcome::Done)
}

fn unknown(id: &str) -> Error {
    Error::missing(id, "no token that was not revoked has this id", "`diptych token list` shows them.")
}

fn revoke(arguments: &Revoke, common: &Common) -> Result<Outcome> {
    if !open(&arguments.state)?.revoke(&arguments.id).map_err(failed)? {
        return Err(unknown(&arguments.id));
    }
    if !common.quiet {
        output::say(&format!("token {} revoked", arguments.id));
    }
    Ok(Outcome::Done)
}

fn json_of(token: &Token) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "namespace": token.namespace,
        "domain": token.domain,
        "rights": token.rights.words(),
        "quota": token.quota,
        "rate": token.rate,
        "created": token.created.to_string(),
        "expires": token.expires.map(|time| time.to_string()),
        "revoked": token.revoked,
    })
}

fn open(state: &StateOptions) -> Result<TokenStore> {
    TokenStore::open(&state.directory()?).map_err(failed)
}

fn failed(error: std::io::Error) -> Error {
    Error::io("the server's tokens", "cannot be read or written", error)
}
