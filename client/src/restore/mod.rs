//! `restore`: the trees of a snapshot, or what stands at one path of it, written into a directory.
//!
//! Each archive is a part with a target of its own: the directory itself if there is one part, else the archive's path
//! below it. What is there already is dealt with by `extract::rules`; a dry run walks the same tables and asks the same
//! rules, and writes nothing.

mod dry_run;
mod prefixed;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use diptych_localfs::extract::Target;

use crate::error::{Error, Result};
use crate::extract::choice::Choice;
use crate::extract::part::Part;
use crate::extract::rules::{Others, Rules};
use crate::extract::space::{self, Totals};
use crate::extract::{Counts, Incomplete, Job, Overwrite};
use crate::names;
use crate::patterns::Patterns;
use crate::progress::{Losses, Progress};
use crate::select::{PathSelection, Verdict, clean_path};
use crate::snapshots::Located;

use prefixed::Prefixed;

/// How to restore.
pub struct RestoreOptions {
    /// The directory to write into.
    pub target: PathBuf,
    /// What to restore, told from the directory.
    pub patterns: Patterns,
    /// What happens to what is there.
    pub overwrite: Overwrite,
    /// Whether files that are there are changed where they lie.
    pub is_in_place: bool,
    /// Whether what the snapshot does not have is deleted.
    pub is_deleting: bool,
    /// Whether to say only what would be done.
    pub is_dry_run: bool,
    /// Threads that restore contents.
    pub threads: usize,
    /// Set from outside to end the job.
    pub interrupt: Arc<AtomicBool>,
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreReport {
    /// What was done; of a dry run, what would be deleted.
    pub counts: Counts,
    /// What could not be restored faithfully; each was told.
    pub losses: u64,
}

/// A part, and where it goes.
struct Placed<'a> {
    part: Part<'a>,
    /// Path of its target below the directory.
    prefix: Vec<u8>,
    totals: Totals,
}

/// Restores what was located in a snapshot. What cannot be restored is reported to `progress`, as losses.
pub fn restore(
    located: &[Located],
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport> {
    let losses = Losses::new(progress);
    let parts = parts(located, &options.patterns)?;
    let mut all = Totals::default();
    for placed in &parts {
        all.entries += placed.totals.entries;
        all.content_bytes = all.content_bytes.saturating_add(placed.totals.content_bytes);
        all.bytes_on_disk = all.bytes_on_disk.saturating_add(placed.totals.bytes_on_disk);
    }
    if all.entries == 0 && options.patterns.has_include() {
        let advice =
            "Patterns are told from the restored root; with --dry-run and none of them all names are shown.";
        return Err(Error::missing("--include", "nothing in the snapshot matches", advice));
    }
    progress.expect(all.entries, all.content_bytes);
    let mut counts = Counts::default();
    let spared: Vec<Vec<u8>> =
        parts.iter().map(|placed| placed.prefix.clone()).filter(|prefix| !prefix.is_empty()).collect();
    if options.is_dry_run {
        let outer = Target::look(&options.target)?;
        if outer.as_ref().is_some_and(|outer| options.overwrite == Overwrite::Refuse && !outer.was_empty()) {
            Target::open(&options.target, false)?;
        }
        for placed in &parts {
            let below = outer.as_ref().map(|outer| outer.below(&placed.prefix, false, false)).transpose()?;
            let target = below.flatten();
            let progress = Prefixed { inner: &losses, prefix: &placed.prefix };
            let told = Losses::new(&progress);
            let rules = rules(placed, target.as_ref(), options, &spared, options.overwrite)?;
            let choice = &mut PathSelection::default();
            let choice = Choice::new(choice, &options.patterns, &placed.prefix);
            let planned =
                dry_run::plan(&placed.part, &rules, choice, target.as_ref(), &told, &options.interrupt)?;
            add(&mut counts, planned);
        }
        return Ok(RestoreReport { counts, losses: losses.count() });
    }
    let outer = Target::open(&options.target, options.overwrite != Overwrite::Refuse)?;
    let written = write(&outer, &parts, options, (&all, &spared), &losses);
    if written.is_err() {
        outer.give_up();
    }
    Ok(RestoreReport { counts: written?, losses: losses.count() })
}

fn write(
    outer: &Target,
    parts: &[Placed<'_>],
    options: &RestoreOptions,
    (all, spared): (&Totals, &[Vec<u8>]),
    losses: &Losses<'_>,
) -> Result<Counts> {
    // How much of what is there stays is not known before it is looked at.
    if matches!(options.overwrite, Overwrite::Refuse | Overwrite::Always) && !options.is_in_place {
        space::check(outer, all, &options.target.display().to_string())?;
    }
    let mut counts = Counts::default();
    for (number, placed) in parts.iter().enumerate() {
        let is_within = |above: &Placed<'_>| {
            placed.prefix.strip_prefix(&above.prefix[..]).is_some_and(|rest| rest.starts_with(b"/"))
        };
        // An archive inside another one is restored into what that has just written.
        let overwrite = match options.overwrite {
            Overwrite::Refuse if parts.iter().take(number).any(is_within) => Overwrite::IfChanged,
            overwrite => overwrite,
        };
        let below = match &placed.prefix[..] {
            b"" => None,
            prefix => outer.below(prefix, true, overwrite != Overwrite::Refuse)?,
        };
        let target = below.as_ref().unwrap_or(outer);
        let progress = Prefixed { inner: losses, prefix: &placed.prefix };
        let told = Losses::new(&progress);
        let rules = rules(placed, Some(target), options, spared, overwrite)?;
        let job = Job {
            target,
            part: &placed.part,
            rules: &rules,
            incomplete: Incomplete::IsCounted,
            threads: options.threads,
            interrupt: &options.interrupt,
        };
        let mut everything = PathSelection::default();
        let choice = Choice::new(&mut everything, &options.patterns, &placed.prefix);
        add(&mut counts, job.run(choice, &told)?);
    }
    Ok(counts)
}

/// The parts, those above before those inside them.
fn parts<'a>(located: &'a [Located], patterns: &Patterns) -> Result<Vec<Placed<'a>>> {
    let mut parts = Vec::new();
    for one in located {
        let prefix = match located.len() {
            1 => Vec::new(),
            _ => clean_path(one.record.path.as_ref().unwrap_or(&one.record.name)),
        };
        if patterns.verdict(&prefix, true) == Verdict::Passed {
            continue;
        }
        let Some(part) = Part::open(&one.open, &one.path)? else {
            let advice = "Paths are told as they were on the source.";
            return Err(Error::missing(names::show(&one.path), "is not in the snapshot", advice));
        };
        let totals = space::totals(&part, Choice::new(&mut PathSelection::default(), patterns, &prefix))?;
        parts.push(Placed { part, prefix, totals });
    }
    parts.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    Ok(parts)
}

fn rules<'r>(
    placed: &'r Placed<'_>,
    target: Option<&Target>,
    options: &'r RestoreOptions,
    spared: &'r [Vec<u8>],
    overwrite: Overwrite,
) -> Result<Rules<'r>> {
    let deletion = match target.filter(|_| options.is_deleting) {
        Some(target) => Some(Others {
            patterns: &options.patterns,
            prefix: &placed.prefix,
            spared,
            mount: target.mount()?,
            is_dry: options.is_dry_run,
        }),
        None => None,
    };
    Rules::new(overwrite, options.is_in_place, deletion, target, &placed.part)
}

fn add(sum: &mut Counts, counts: Counts) {
    let Counts { entries, content_bytes, kept, skipped, deleted, incomplete } = counts;
    sum.entries += entries;
    sum.content_bytes += content_bytes;
    sum.kept += kept;
    sum.skipped += skipped;
    sum.deleted += deleted;
    sum.incomplete += incomplete;
}
