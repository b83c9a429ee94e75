//! `diptych forget` and `diptych unforget`.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::{Map, Value, json};

use crate::error::{Error, InPlace, Result};
use crate::forget::policy::{Policy, Reason, Rule, parse_span};
use crate::forget::{Group, GroupBy, GroupKey, Senders, check_clock, expires, forget, named, plan, unforget};
use crate::list::flush;
use crate::names;
use crate::snapshots::{self, Filter, Listed, list};
use diptych_backend::{FileKind, FileName};
use diptych_format::Digest;

use super::json::{JsonTo, summary_event};
use super::options::{Common, Json};
use super::outcome::Outcome;
use super::output;
use super::repository::RepositoryOptions;
use super::snapshots::{FilterOptions, show_time};
use super::terminal::Terminal;

/// Forget snapshots: those that are named, or all that no --keep option keeps.
///
/// The --keep options look at the snapshots of each host and set of paths by themselves, from the newest to the oldest. What
/// one of them keeps is kept. Snapshots of interrupted runs are not counted; they go when a complete one has come after
/// them. If nothing of a group would be left, nothing at all is forgotten.
///
/// Forgetting frees no room yet, and can be taken back by `unforget`: data is removed by `prune`, and not before --expire.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych forget -r /backup/repo --keep-daily 7 --keep-weekly 5 --keep-yearly unlimited --dry-run
  diptych forget -r /backup/repo --keep-within 30d --keep-tag release --host mail
  diptych forget -r /backup/repo 4f1c22d0")]
pub struct Arguments {
    /// Snapshots to forget, by the first digits of their ids.
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["keep", "FilterOptions", "group_by"])]
    snapshots: Vec<String>,
    /// Which snapshots a --keep option looks at together: those with the same host, paths, tags; or `none` for all.
    #[arg(long, value_name = "WHAT", default_value = "host,paths", value_parser = parse_group_by)]
    group_by: GroupBy,
    /// Go by when a snapshot arrived, by the clock of the machine that has the repository (which must be a directory), and not by
    /// when its source says that it was made.
    #[arg(long)]
    by_arrival: bool,
    /// Who has sent which snapshots, as a server knows it that runs this: an id and a word in each line.
    #[arg(long, value_name = "FILE", hide = true)]
    senders: Option<PathBuf>,
    /// Forget nothing: say what would be.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Keep the data for so long, as `prune` sees it: years, months, weeks, days, hours as 1y, 6m, 2w, 30d, 12h.
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = parse_span)]
    expire: Span,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
    #[command(flatten)]
    keep: KeepOptions,
    #[command(flatten)]
    filter: FilterOptions,
}

/// What a policy keeps.
#[derive(clap::Args)]
#[group(id = "keep", multiple = true)]
#[command(next_help_heading = "Keep")]
struct KeepOptions {
    /// The last N snapshots; N may be `unlimited`, here and below.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    keep_last: Option<u64>,
    /// The newest of each of the last N hours that have any.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    keep_hourly: Option<u64>,
    /// The newest of each of the last N days that have any.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    keep_daily: Option<u64>,
    /// The newest of each of the last N weeks (from Monday on) that have any.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    keep_weekly: Option<u64>,
    /// The newest of each of the last N months that have any.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    keep_monthly: Option<u64>,
    /// The newest of each of the last N years that have any.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    keep_yearly: Option<u64>,
    /// All that are younger than SPAN, counted from the newest: 1y6m, 2w, 30d, 12h.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    keep_within: Option<Span>,
    /// All that have TAG. May be repeated: any of them.
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
}

impl KeepOptions {
    fn policy(&self) -> Policy {
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let rules = Rule::ALL.into_iter().zip(counts);
        let rules = rules.filter_map(|(rule, count)| count.map(|count| (rule, count))).collect();
        Policy { rules, within: self.keep_within, tags: self.keep_tag.clone() }
    }
}

fn parse_count(text: &str) -> Result<u64, String> {
    match text.parse() {
        _ if text == "unlimited" => Ok(u64::MAX),
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a number above 0, or unlimited, is expected".to_owned()),
    }
}

fn parse_group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy { host: false, paths: false, tags: false };
    for word in text.split(',').filter(|_| text != "none") {
        match word {
            "host" => by.host = true,
            "paths" => by.paths = true,
            "tags" => by.tags = true,
            _ => return Err(format!("{word:?} is not known: write host, paths, tags with commas, or none")),
        }
    }
    Ok(by)
}

/// Gives snapshots the time at which their files were written.
fn take_arrival(location: &str, listed: &mut [Listed]) -> Result<()> {
    let directory = Path::new(location.strip_prefix("file:").unwrap_or(location));
    for listed in listed.iter_mut() {
        let path = directory.join("snapshots").join(listed.id.to_string());
        let arrived = std::fs::metadata(&path).and_then(|found| found.modified());
        let arrived = arrived.map_err(|error| {
            Error::io(path.display().to_string(), "--by-arrival: cannot tell when this arrived", error)
        })?;
        listed.snapshot.time = Timestamp::try_from(arrived)
            .map_err(|_| Error::Usage(format!("{}: its time is none", path.display())))?;
    }
    listed.sort_by_key(|listed| (listed.snapshot.time, listed.id));
    Ok(())
}

fn read_senders(path: &Path) -> Result<Senders> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(&place, "cannot be read", error))?;
    let line = |line: &str| {
        let (id, sender) = line.split_once(' ')?;
        Some((FileName::decode(FileKind::Snapshot, id)?, sender.to_owned()))
    };
    let senders: Option<Vec<_>> = text.lines().map(line).collect();
    let senders = senders.ok_or_else(|| Error::Usage(format!("{place}: an id and a word are expected")))?;
    Ok(senders.into_iter().map(|(name, sender)| (Digest(*name.digest()), sender)).collect())
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<Outcome> {
    let policy = arguments.keep.policy();
    if arguments.snapshots.is_empty() && policy.is_empty() {
        let what = "name the snapshots to forget, or say by --keep options which to keep";
        return Err(Error::Usage(what.to_owned()));
    }
    let terminal =
        Terminal::new(&Common { quiet: true, ..*common }, arguments.json.json.then_some(JsonTo::Output));
    let repository = arguments.repository.open(&*terminal)?;
    let mut listed = list(&repository, &*terminal)?;
    if arguments.by_arrival {
        take_arrival(&arguments.repository.repository, &mut listed)?;
    }
    let senders = arguments.senders.as_deref().map(read_senders).transpose()?.unwrap_or_default();
    let now = Timestamp::now();
    let named = named(&listed, &arguments.snapshots)?;
    check_clock(&listed, &named, now)?;
    let groups = match arguments.snapshots.is_empty() {
        true => {
            let filter = arguments.filter.filter();
            plan(&listed, &filter, &policy, arguments.group_by, &senders, &TimeZone::system())?
        }
        false => Vec::new(),
    };
    let forgotten: Vec<&Listed> = groups.iter().flat_map(Group::forgotten).chain(&named).collect();
    let kept = groups.iter().flat_map(|group| &group.verdicts).filter(|verdict| !verdict.reasons.is_empty());
    let kept = kept.count();
    if !common.quiet || arguments.json.json {
        tell(arguments.json.json, &groups, &named)?;
    }
    let expires = expires(now, arguments.expire)?;
    if !arguments.dry_run {
        forget(&repository, forgotten.iter().copied(), now, expires)?;
        // Those who send to an encrypted repository through a server may remove no index, and so a server's own job does:
        // of each sender those that the same sender has replaced, for nobody sees what another one has sent.
        if arguments.senders.is_some() {
            let is_of_one = |old: &Digest, new: &Digest| {
                senders.get(old).is_none_or(|sender| senders.get(new) == Some(sender))
            };
            let removed = repository.index().remove_replaced_if(is_of_one);
            removed.in_place(repository.backend().location())?;
        }
    }
    if arguments.json.json {
        JsonTo::Output.send(&summary_event(
            "forget",
            json!({
                "kept": kept,
                "forgotten": forgotten.len(),
                "dry_run": arguments.dry_run,
                "expires": expires.to_string(),
            }),
        ));
    } else if !common.quiet {
        let count = count(forgotten.len());
        output::say(&match arguments.dry_run {
            true => format!("{count} would be forgotten"),
            false if forgotten.is_empty() => format!("{count} forgotten"),
            false => {
                format!("{count} forgotten; `diptych unforget` takes that back until {}", show_time(expires))
            }
        });
    }
    Ok(Outcome::of_losses(terminal.losses()))
}

/// A number of snapshots in words.
fn count(snapshots: usize) -> String {
    if snapshots == 1 { "1 snapshot".to_owned() } else { format!("{snapshots} snapshots") }
}

/// Says what is kept, and why, and what is not.
fn tell(is_json: bool, groups: &[Group], named: &[Listed]) -> Result<()> {
    let mut out = output::results();
    let mut put = |line: String| out.write_all(format!("{line}\n").as_bytes()).map_err(output::cannot_write);
    for group in groups {
        if !is_json {
            let kept = group.verdicts.len() - group.forgotten().count();
            put(format!("{}: {kept} of {} kept", show_key(&group.key), count(group.verdicts.len())))?;
        }
        for verdict in &group.verdicts {
            put(match is_json {
                true => json_line(Some(&group.key), &verdict.listed, &verdict.reasons),
                false => text_line(&verdict.listed, &verdict.reasons),
            })?;
        }
    }
    for listed in named {
        put(if is_json { json_line(None, listed, &[]) } else { text_line(listed, &[]) })?;
    }
    flush(&mut out)
}

fn show_key(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    if let Some(host) = &key.host {
        parts.push(format!("host {}", names::show(host.as_bytes())));
    }
    if let Some(paths) = &key.paths {
        let paths: Vec<String> = paths.iter().map(|path| names::show(path)).collect();
        parts.push(format!("paths {}", paths.join(" ")));
    }
    if let Some(tags) = &key.tags {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        parts.push(if tags.is_empty() {
            "no tags".to_owned()
        } else {
            format!("tags {}", names::show(tags.join(",").as_bytes()))
        });
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
}

fn text_line(listed: &Listed, reasons: &[Reason]) -> String {
    let word = if reasons.is_empty() { "forget" } else { "keep" };
    let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
    let note = if listed.is_partial { "  [partial]" } else { "" };
    let line = format!(
        "  {word:<6}  {}  {}{note}  {}",
        listed.short_id(),
        show_time(listed.snapshot.time),
        reasons.join(", ")
    );
    line.trim_end().to_owned()
}

fn json_line(key: Option<&GroupKey>, listed: &Listed, reasons: &[Reason]) -> String {
    let mut group = Map::new();
    if let Some(key) = key {
        if let Some(host) = &key.host {
            group.insert("host".to_owned(), host.as_str().into());
        }
        if let Some(paths) = &key.paths {
            let paths: Vec<Value> = paths.iter().map(|path| names::show(path).into()).collect();
            group.insert("paths".to_owned(), paths.into());
        }
        if let Some(tags) = &key.tags {
            group.insert("tags".to_owned(), tags.iter().cloned().collect::<Vec<_>>().into());
        }
    }
    json!({
        "event": "forget",
        "snapshot": listed.id.to_string(),
        "time": listed.snapshot.time.to_string(),
        "partial": listed.is_partial,
        "group": group,
        "kept": !reasons.is_empty(),
        "reasons": reasons.iter().map(Reason::to_string).collect::<Vec<_>>(),
    })
    .to_string()
}

/// Take back that snapshots were forgotten.
///
/// `diptych snapshots --all` shows which are. What `prune` has removed cannot be taken back.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  diptych unforget -r /backup/repo 4f1c22d0")]
pub struct UnforgetArguments {
    /// Snapshots, by the first digits of their ids.
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    repository: RepositoryOptions,
}

pub(super) fn run_unforget(arguments: &UnforgetArguments, common: &Common) -> Result<Outcome> {
    let terminal = Terminal::quiet(common);
    let repository = arguments.repository.open(&*terminal)?;
    let listed = list(&repository, &*terminal)?;
    let snapshots = snapshots::named(&listed, &arguments.snapshots, &Filter::default())?;
    if let Some(living) = snapshots.iter().find(|listed| listed.forgotten.is_none()) {
        let advice = "`diptych snapshots --all` shows which are.";
        return Err(Error::missing(living.short_id(), "this snapshot is not forgotten", advice));
    }
    unforget(&repository, &snapshots)?;
    if arguments.json.json {
        let ids: Vec<String> = snapshots.iter().map(|listed| listed.id.to_string()).collect();
        JsonTo::Output.send(&summary_event("unforget", json!({ "snapshots": ids })));
    } else if !common.quiet {
        output::say(&format!("{} no longer forgotten", count(snapshots.len())));
    }
    Ok(Outcome::of_losses(terminal.losses()))
}
