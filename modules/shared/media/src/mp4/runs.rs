//! A column of the sample table: values, each with how often it repeats.

/// Runs that are sorted at most: they are copied for that.
const MAX_SORTED: usize = 1 << 20;

/// See above. An empty run is never stored.
#[derive(Clone, Debug)]
pub(super) struct Runs<T>(Vec<(u32, T)>);

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + Ord> Runs<T> {
    pub(super) fn push(&mut self, count: u32, value: T) {
        match self.0.last_mut() {
            _ if count == 0 => {}
            Some((last_count, last)) if *last == value && last_count.checked_add(count).is_some() => {
                *last_count += count;
            }
            _ => self.0.push((count, value)),
        }
    }

    /// Takes the last sample's value off.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (count, value) = self.0.last_mut()?;
        let value = *value;
        *count -= 1;
        if *count == 0 {
            self.0.pop();
        }
        Some(value)
    }

    pub(super) fn last(&self) -> Option<T> {
        self.0.last().map(|(_, value)| *value)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, T)> {
        self.0.iter().copied()
    }

    /// Another value for each.
    pub(super) fn change(&mut self, change: impl Fn(T) -> T) {
        for (_, value) in &mut self.0 {
            *value = change(*value);
        }
    }

    /// The value in the middle of all samples', sorted; in a long column that of some of its runs, evenly spread.
    pub(super) fn median(&self) -> Option<T> {
        let every = self.0.len() / MAX_SORTED + 1;
        let mut sorted: Vec<_> = self.0.iter().step_by(every).copied().collect();
        sorted.sort_unstable_by_key(|(_, value)| *value);
        let total: u64 = sorted.iter().map(|(count, _)| u64::from(*count)).sum();
        let mut seen = 0;
        let middle = sorted.iter().find(|(count, _)| {
            seen += u64::from(*count);
            seen * 2 >= total
        });
        middle.map(|(_, value)| *value)
    }

    /// Gives back what was taken for growing.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Memory that they take.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.0[..])
    }
}

/// A place in a column.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    run: usize,
    used: u32,
}

impl Place {
    pub(super) fn next<T: Copy>(&mut self, runs: &Runs<T>) -> Option<T> {
        let &(count, value) = runs.0.get(self.run)?;
        self.used += 1;
        if self.used >= count {
            *self = Self { run: self.run + 1, used: 0 };
        }
        Some(value)
    }
}
