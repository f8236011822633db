use std::fmt;

use crate::Error;

/// A path, or the segments that a path begins with. Case matters; the query is not looked at.
///
/// ```
/// use orchestra_mesh::route::PathPattern;
///
/// let below = PathPattern::prefix("/carts/")?;
/// assert!(below.matches("/carts") && below.matches("/carts/7"));
/// assert!(!below.matches("/cartsy"));
/// # Ok::<(), orchestra_mesh::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(Inner);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Inner {
    Exact(Box<str>),
    /// Without a slash at the end: the prefix `/` is the empty text.
    Prefix(Box<str>),
}

impl PathPattern {
    /// This path alone.
    pub fn exact(path: &str) -> Result<Self, Error> {
        check(path)?;
        Ok(Self(Inner::Exact(path.into())))
    }

    /// This path and all below it, by whole segments; slashes at its end do not matter.
    pub fn prefix(path: &str) -> Result<Self, Error> {
        check(path)?;
        Ok(Self(Inner::Prefix(path.trim_end_matches('/').into())))
    }

    /// Every path.
    pub fn everything() -> Self {
        Self(Inner::Prefix("".into()))
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &str) -> bool {
        match &self.0 {
            Inner::Exact(exact) => **exact == *path,
            Inner::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }
}

fn check(path: &str) -> Result<(), Error> {
    let valid = path.starts_with('/')
        && path.len() <= 1024
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && !path.contains(['?', '#'])
        && !has_dot_segment(path);
    if valid {
        return Ok(());
    }
    let shown: String = path.chars().take(64).collect();
    Err(Error::config(format!("{shown:?} is no path of a route")))
}

/// Whether a segment is `.` or `..`, also when written with `%2e`: the next hop may resolve it and so
/// leave the route that was chosen for it.
pub(crate) fn has_dot_segment(path: &str) -> bool {
    path.split(['/', '\\']).any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        while !rest.is_empty() {
            let after = rest
                .strip_prefix('.')
                .or_else(|| rest.strip_prefix("%2e"))
                .or_else(|| rest.strip_prefix("%2E"));
            let Some(after) = after else { return false };
            rest = after;
            dots += 1;
        }
        matches!(dots, 1 | 2)
    })
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Exact(path) => f.write_str(path),
            Inner::Prefix(path) => write!(f, "{path}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::has_dot_segment;

    #[test]
    fn dot_segments_are_seen_in_every_spelling() {
        for path in [
            "/a/../b",
            "/..",
            "/%2e%2E/x",
            "/a/.%2e",
            "/./a",
            "/a\\..\\b",
            "/%2e",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "/a/...",
            "/.well-known/x",
            "/a..b",
            "/",
            "//",
            "/%2e%2e%2e",
            "/a.b",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
