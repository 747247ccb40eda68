//! What a run depends on besides its arguments: folders, processors, environment, time. Read once, so that resolving
//! arguments is a function of its inputs.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::hub::{DatasetFile, HubSurroundings};
use crate::registry::store::Store;

/// An environment variable that a plugin was granted. Not part of [`Surroundings`], because values may be secrets and
/// belong into no file.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Devices of NVIDIA's driver, on Linux and on Linux inside Windows.
const GPU_DRIVERS: &[&str] = &["/dev/nvidiactl", "/dev/dxg"];

/// The process's surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Relative paths of the command line start here.
    pub current_dir: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// Where caches belong: `XDG_CACHE_HOME`, else `~/.cache`.
    pub cache: Option<PathBuf>,
    /// Where a user's settings belong: `XDG_CONFIG_HOME`, else `~/.config`.
    pub settings: Option<PathBuf>,
    /// Where a user's data belong: `XDG_DATA_HOME`, else `~/.local/share`.
    pub data: Option<PathBuf>,
    /// Threads for one operation unless an argument says otherwise.
    pub num_threads: usize,
    /// Whether there is a driver for NVIDIA's GPUs: without one no run can use a GPU.
    pub has_gpu_driver: bool,
    /// Number of this process on its machine, if a launcher has given it one.
    pub local_rank: Option<usize>,
    /// Name of this machine.
    pub host_name: String,
    /// Seconds since 1970, UTC.
    pub now: u64,
    /// The Hugging Face Hub.
    pub hub: HubSurroundings,
}

impl Surroundings {
    /// Of this process.
    pub fn read() -> Result<Self> {
        let folder = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = folder("HOME");
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let cache =
            folder("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
        Ok(Self {
            current_dir: env::current_dir().context("the current folder cannot be read")?,
            hub: HubSurroundings::read(cache.as_deref()),
            cache,
            settings: folder("XDG_CONFIG_HOME")
                .or_else(|| home.as_ref().map(|home| home.join(".config"))),
            data: folder("XDG_DATA_HOME")
                .or_else(|| home.as_ref().map(|home| home.join(".local/share"))),
            home,
            num_threads: openmp_threads(env::var("OMP_NUM_THREADS").ok().as_deref())
                .unwrap_or(processors),
            has_gpu_driver: GPU_DRIVERS.iter().any(|path| Path::new(path).exists()),
            local_rank: env::var("LOCAL_RANK")
                .ok()
                .and_then(|text| text.parse().ok()),
            host_name: hostname::get().map_or_else(
                |_| "localhost".to_owned(),
                |name| name.to_string_lossy().into_owned(),
            ),
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_secs()),
        })
    }

    /// Components of plugins by digest.
    pub fn plugin_store(&self) -> Option<Store> {
        let data = self.data.as_ref()?;
        Some(Store::new(data.join("host").join("plugins")))
    }

    /// The user's own `plugins.lock` and `trust.toml`.
    pub fn plugin_settings(&self) -> Option<PathBuf> {
        Some(self.settings.as_ref()?.join("host"))
    }

    /// `path` from the root, with `~` replaced; a file of the Hub stays as it is.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        if DatasetFile::is_meant(path) {
            return path.to_owned();
        }
        let path = match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_path_buf(),
        };
        self.current_dir.join(path).components().collect()
    }

    /// The time as the reference puts it into folder names, `%b%d_%H-%M-%S`; in UTC.
    pub fn time_stamp(&self) -> String {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let (_, month, day) = date_of(self.now / 86_400);
        let second = self.now % 86_400;
        format!(
            "{}{day:02}_{:02}-{:02}-{:02}",
            MONTHS[month],
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

/// `YYYY-MM-DD` of seconds since 1970, UTC.
pub fn date(seconds: u64) -> String {
    let (year, month, day) = date_of(seconds / 86_400);
    format!("{year:04}-{:02}-{day:02}", month + 1)
}

/// The first value of `OMP_NUM_THREADS`, which may be a list for nested levels.
pub fn openmp_threads(value: Option<&str>) -> Option<usize> {
    value?
        .split(',')
        .next()?
        .trim()
        .parse()
        .ok()
        .filter(|threads| *threads > 0)
}

/// Year, month from 0 and day from 1 of a day since 1970, by counting years of 400, 100, 4 and 1 that begin in March, so
/// that leap days come last.
fn date_of(days_since_1970: u64) -> (u64, usize, u64) {
    let day = days_since_1970 + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = ((month_from_march + 2) % 12) as usize;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now: u64) -> Surroundings {
        Surroundings {
            current_dir: "/runs".into(),
            home: Some("/home/ada".into()),
            cache: None,
            settings: None,
            data: None,
            num_threads: 1,
            has_gpu_driver: false,
            local_rank: None,
            host_name: "box".to_owned(),
            now,
            hub: HubSurroundings {
                endpoint: String::new(),
                cache: None,
                token: None,
                offline: false,
            },
        }
    }

    #[test]
    fn paths_become_absolute() {
        for (path, expected) in [
            ("a/./b", "/runs/a/b"),
            ("/x", "/x"),
            ("~/m", "/home/ada/m"),
            ("~", "/home/ada"),
            ("~x", "/runs/~x"),
            ("hf://datasets/o/n/a", "hf://datasets/o/n/a"),
        ] {
            assert_eq!(
                at(0).absolute(Path::new(path)),
                Path::new(expected),
                "{path}"
            );
        }
    }

    #[test]
    fn time_stamps_follow_the_calendar() {
        let cases = [
            (0, "Jan01_00-00-00"),
            (951_782_399, "Feb28_23-59-59"),
            (951_782_400, "Feb29_00-00-00"),
            (951_868_800, "Mar01_00-00-00"),
            (1_700_000_000, "Nov14_22-13-20"),
            (4_107_542_399, "Feb28_23-59-59"),
            (4_107_542_400, "Mar01_00-00-00"),
        ];
        for (now, expected) in cases {
            assert_eq!(at(now).time_stamp(), expected, "{now}");
        }
        for (now, expected) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_700_000_000, "2023-11-14"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(now), expected, "{now}");
        }
    }

    #[test]
    fn the_first_openmp_level_counts() {
        for (value, expected) in [
            (Some("4"), Some(4)),
            (Some("2,1"), Some(2)),
            (Some("0"), None),
            (Some("many"), None),
            (None, None),
        ] {
            assert_eq!(openmp_threads(value), expected, "{value:?}");
        }
    }
}
