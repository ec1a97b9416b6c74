//! Micro-VMs that are kept ready. Some wait for any snapshot of their image: all is made but what that decides. Others are of one snapshot whose first
//! answer is known: its memory is mapped, and nothing of it has run. They serve nothing else, and go with it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

use crate::daemon::Daemon;
use crate::hypervisor::{Machine, Task};
use crate::images::Image;
use crate::refusal::{Code, Refusal};
use crate::request::{Create, Kind};
use crate::reset::Resetter;
use crate::snapshots::{Shape, Snapshot};

/// Kept of what was asked for once, and of what was asked for while none was there.
const FEW: usize = 2;
const MANY: usize = 8;
/// Those of one snapshot are kept when it is asked for again before so many others are: beyond, they would only push each other out.
const SOON: u64 = 16;
/// Kept in all, unless a client asks for fewer.
pub const MOST: u32 = 24;
/// What one takes of the host's memory, that of the kernel included, MiB.
pub const MIB_EACH: u32 = 5;

/// The way to a monitor that waits.
#[derive(Debug)]
pub struct Waiting {
    place: Place,
    control: UnixStream,
}

/// What two micro-VMs must have in common to stand for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    shape: Shape,
    cpu_milli: u32,
    pids: u32,
    /// The id of the snapshot that alone may be brought back, mapped already.
    snapshot: Option<String>,
}

impl Place {
    pub fn of(image: &Image, create: &Create) -> Self {
        Self {
            shape: Shape::of(image, create),
            cpu_milli: create.cpu_milli,
            pids: create.pids,
            snapshot: None,
        }
    }

    /// The same for one snapshot alone.
    pub fn for_snapshot(&self, id: &str) -> Self {
        Self {
            snapshot: Some(id.to_owned()),
            ..self.clone()
        }
    }
}

/// What is to be kept ready, seen from one that was asked for.
pub struct Next {
    /// Where they are wanted, the one that was asked first.
    places: Vec<Place>,
    image: Arc<Image>,
    create: Create,
}

impl Next {
    pub fn new(places: Vec<Place>, image: &Arc<Image>, create: &Create) -> Self {
        Self {
            places,
            image: Arc::clone(image),
            create: create.clone(),
        }
    }
}

impl Waiting {
    /// It, and the monitor's end of the socket.
    fn new(place: Place) -> io::Result<(Self, OwnedFd)> {
        let (control, theirs) = UnixStream::pair()?;
        Ok((Self { place, control }, OwnedFd::from(theirs)))
    }

    /// Whether it has its snapshot, and its function, before it is asked for.
    pub fn is_of_snapshot(&self) -> bool {
        self.place.snapshot.is_some()
    }

    /// Has it bring back what it will be asked for, and wait with that.
    fn order_ahead(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        tell(
            &self.control,
            &order(snapshot, true),
            &[snapshot.file().as_fd()],
        )
    }

    /// What asks it for resets, once it has brought something back.
    pub fn resetter(&self) -> io::Result<Resetter> {
        self.control.try_clone().map(Resetter::by)
    }

    /// What it is to be told: to bring that back, with that socket at descriptor 3.
    pub fn order(self, snapshot: Arc<Snapshot>, fd3: OwnedFd) -> RestoreOrder {
        RestoreOrder {
            ahead: self.is_of_snapshot(),
            control: self.control,
            snapshot,
            fd3,
        }
    }
}

/// A snapshot on its way to the monitor that waits for it.
#[derive(Debug)]
pub struct RestoreOrder {
    control: UnixStream,
    snapshot: Arc<Snapshot>,
    fd3: OwnedFd,
    /// The monitor has the snapshot.
    ahead: bool,
}

impl RestoreOrder {
    /// Hands the file over, or what is still missing; whether it could be brought back shows in the sandbox.
    pub fn send(&self) -> Result<(), Refusal> {
        let fd3 = self.fd3.as_fd();
        if self.ahead {
            return tell(&self.control, "\n", &[fd3]);
        }
        let file = self.snapshot.file().as_fd();
        tell(&self.control, &order(&self.snapshot, false), &[file, fd3])
    }
}

/// Tells a monitor that is still to be made to bring that back, with that socket at descriptor 3: it finds the order when it listens. Answers what asks it
/// for resets afterwards, and its end of the socket.
pub fn tell_beforehand(
    snapshot: &Arc<Snapshot>,
    fd3: OwnedFd,
) -> Result<(Resetter, OwnedFd), Refusal> {
    let (control, theirs) = UnixStream::pair().map_err(failed)?;
    let order = RestoreOrder {
        control,
        snapshot: Arc::clone(snapshot),
        fd3,
        ahead: false,
    };
    order.send()?;
    Ok((Resetter::by(order.control), OwnedFd::from(theirs)))
}

/// Stands at descriptor 3 of a monitor that gets its guest's socket later.
pub fn no_socket_yet() -> io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}

/// To bring that back; `later` if what is to be at descriptor 3 comes with a second message.
fn order(snapshot: &Snapshot, later: bool) -> String {
    let hints = match snapshot.learned() {
        Some(touches) => json!(touches),
        None => json!({"watch": true}),
    };
    json!({"key": snapshot.key(), "hints": hints, "later": later}).to_string()
}

fn tell(control: &UnixStream, text: &str, files: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(files));
    let parts = [IoSlice::new(text.as_bytes())];
    // The socket is empty, or holds one message, and takes so little at once.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match sendmsg(control, &parts, &mut rights, flags) {
        Ok(count) if count == text.len() => Ok(()),
        Ok(_) => Err(failed("it was sent in part")),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::SetupFailed,
        format!("The snapshot could not be given to the micro-VM: {error}."),
        "Ask for another sandbox.",
    )
}

/// Those of one place.
#[derive(Default)]
struct Stock {
    waiting: Vec<u64>,
    making: usize,
    wanted: usize,
    /// When one was last asked for, by [`Ready::asked`].
    asked: u64,
}

/// All that are ready or on their way, by place.
pub struct Ready {
    stocks: HashMap<Place, Stock>,
    /// Counts what is asked for.
    asked: u64,
    most: usize,
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            stocks: HashMap::new(),
            asked: 0,
            most: MOST as usize,
        }
    }
}

impl Ready {
    /// How many there are, with those that are being made.
    pub fn len(&self) -> usize {
        let stocks = self.stocks.values();
        stocks.fold(0, |sum, stock| {
            sum.saturating_add(stock.waiting.len())
                .saturating_add(stock.making)
        })
    }

    /// One is gone, taken or not.
    pub fn remove(&mut self, place: &Place, key: u64) {
        if let Some(stock) = self.stocks.get_mut(place) {
            stock.waiting.retain(|known| *known != key);
        }
    }

    /// One is asked for; answers it if it is there, which then is so no more.
    fn take(&mut self, place: &Place) -> Option<u64> {
        self.asked = self.asked.saturating_add(1);
        let stock = self.stocks.entry(place.clone()).or_default();
        let again = stock.asked > 0 && self.asked.saturating_sub(stock.asked) <= SOON;
        stock.asked = self.asked;
        let taken = stock.waiting.pop();
        let short = if taken.is_none() { MANY } else { FEW };
        stock.wanted = match stock.wanted {
            0 if place.snapshot.is_some() && !again => 0,
            // The first of all found none, which says nothing of how many come at once.
            0 => FEW,
            wanted => wanted.max(short),
        };
        taken
    }

    /// Those that wait for that snapshot, of which no more are wanted.
    fn forget(&mut self, id: &str) -> Vec<u64> {
        let mut waiting = Vec::new();
        self.stocks.retain(|place, stock| {
            if place.snapshot.as_deref() != Some(id) {
                return true;
            }
            stock.wanted = 0;
            waiting.append(&mut stock.waiting);
            stock.making > 0
        });
        waiting
    }

    /// One that may go for another of `place`, or for none: of the place that nobody has asked for the longest, which wants none from now on.
    fn spare(&mut self, place: Option<&Place>) -> Option<u64> {
        self.stocks
            .retain(|_, stock| stock.wanted > 0 || stock.making > 0 || !stock.waiting.is_empty());
        let others = self
            .stocks
            .iter_mut()
            .filter(|(other, stock)| Some(*other) != place && !stock.waiting.is_empty());
        let (_, stock) = others.min_by_key(|(_, stock)| stock.asked)?;
        stock.wanted = 0;
        stock.waiting.last().copied()
    }
}

impl Daemon {
    /// One that is ready, which then is so no more.
    pub(crate) fn take_ready(&mut self, place: &Place) -> Option<u64> {
        self.ready.take(place)
    }

    /// Keeps no more than that; those that are being made may be more for a moment.
    pub(crate) fn keep_ready(&mut self, most: u32) {
        self.ready.most = most.min(MOST) as usize;
        while self.ready.len() > self.ready.most {
            let Some(key) = self.ready.spare(None) else {
                return;
            };
            self.kill_now(key);
        }
    }

    /// Has as many made as are wanted, once for each that was asked for.
    pub(crate) fn want_ready(&mut self, next: Option<Next>) {
        let Some(Next {
            places,
            image,
            create,
        }) = next
        else {
            return;
        };
        for place in places {
            self.want_at(&place, &image, &create);
        }
    }

    fn want_at(&mut self, place: &Place, image: &Arc<Image>, create: &Create) {
        let Some(stock) = self.ready.stocks.get(place) else {
            return;
        };
        let there = stock.waiting.len().saturating_add(stock.making);
        let missing = stock.wanted.saturating_sub(there);
        for _ in 0..missing {
            if self.draining || self.ready.most == 0 {
                return;
            }
            if self.sandboxes.len() >= self.options.max_sandboxes as usize {
                return;
            }
            if self.ready.len() >= self.ready.most {
                match self.ready.spare(Some(place)) {
                    Some(key) => self.kill_now(key),
                    None => return,
                }
            }
            if let Err(error) = self.start_ready(place.clone(), image, create) {
                return self.warn(&format!("no micro-VM can be kept ready: {error}"));
            }
        }
    }

    fn start_ready(&mut self, place: Place, image: &Arc<Image>, create: &Create) -> io::Result<()> {
        let Some(hypervisor) = self.hypervisor.clone() else {
            return Ok(());
        };
        let own = match &place.snapshot {
            Some(id) => match self.snapshots.by_id(id) {
                Some(snapshot) => Some(snapshot),
                // It has been forgotten.
                None => return Ok(()),
            },
            None => None,
        };
        let bundle = own.as_ref().and_then(|snapshot| snapshot.bundle());
        let bundle = bundle.map(|digest| self.bundles.get(digest)).transpose();
        let bundle = bundle.map_err(|refusal| io::Error::other(refusal.message))?;
        let create = Create {
            kind: Kind::Microvm,
            label: format!("ready-{}", create.image),
            bundle: None,
            snapshot: None,
            ..create.clone()
        };
        let mut making = self.making(&create, image, no_socket_yet()?)?;
        let counters = making.count(&self.counters)?;
        let (waiting, theirs) = Waiting::new(place.clone())?;
        let likely = match &own {
            Some(snapshot) => {
                let told = waiting.order_ahead(snapshot);
                told.map_err(|refusal| io::Error::other(refusal.message))?;
                None
            }
            None => self.snapshots.bare(&place.shape),
        };
        let task = Task::Wait {
            likely: likely.is_some(),
        };
        let machine = Machine::new(hypervisor, counters);
        making.in_machine(machine.of_snapshot(likely).hearing(Some(theirs)), task);
        making.label.clone_from(&create.label);
        making.bundle = bundle;
        making.waiting = Some(waiting);
        self.make(making)?;
        let stock = self.ready.stocks.entry(place).or_default();
        stock.making = stock.making.saturating_add(1);
        Ok(())
    }

    /// A snapshot is no more: nor are those that wait for it alone.
    pub(crate) fn forget_ready(&mut self, id: &str) {
        for key in self.ready.forget(id) {
            self.kill_now(key);
        }
    }

    /// One has been made.
    pub(crate) fn made_ready(&mut self, key: u64) {
        let Some(entry) = self.sandboxes.get_mut(key) else {
            return;
        };
        let Some(waiting) = &entry.waiting else {
            return;
        };
        let place = waiting.place.clone();
        let id = place.snapshot.as_ref();
        let forgotten = id.is_some_and(|id| self.snapshots.by_id(id).is_none());
        let killed = entry.killed;
        let stock = self.ready.stocks.entry(place).or_default();
        stock.making = stock.making.saturating_sub(1);
        // What was to end while it was made could not be ended then.
        if forgotten || killed {
            return self.kill_now(key);
        }
        stock.waiting.push(key);
        if self.ready.len() > self.ready.most {
            self.keep_ready(u32::try_from(self.ready.most).unwrap_or(MOST));
        }
    }

    /// One could not be made: no more are, until one is wanted again.
    pub(crate) fn not_ready(&mut self, waiting: &Waiting) {
        if let Some(stock) = self.ready.stocks.get_mut(&waiting.place) {
            stock.making = stock.making.saturating_sub(1);
            stock.wanted = 0;
        }
    }

    /// One ends that nobody has taken.
    pub(crate) fn ready_ends(&mut self, key: u64) {
        if let Some(waiting) = self.sandboxes.get_mut(key).and_then(|e| e.waiting.as_ref()) {
            self.ready.remove(&waiting.place, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::tests::shape;

    fn place(memory_mb: u32) -> Place {
        Place {
            shape: shape(memory_mb),
            cpu_milli: 1000,
            pids: 128,
            snapshot: None,
        }
    }

    #[test]
    fn a_few_are_wanted_and_many_once_there_were_too_few() {
        let mut ready = Ready::default();
        let place = place(128);
        assert_eq!(ready.take(&place), None);
        assert_eq!(ready.stocks[&place].wanted, FEW);
        ready.stocks.get_mut(&place).unwrap().waiting.push(1);
        assert_eq!(ready.take(&place), Some(1));
        assert_eq!(ready.stocks[&place].wanted, FEW);
        assert_eq!(ready.take(&place), None);
        assert_eq!(ready.stocks[&place].wanted, MANY);
    }

    #[test]
    fn those_of_a_snapshot_are_found_by_it_and_serve_nothing_else() {
        let mut ready = Ready::default();
        let any = place(128);
        let own = any.for_snapshot("snap_1");
        for (key, place) in [(1, &any), (2, &own), (3, &any.for_snapshot("snap_2"))] {
            ready.take(place);
            ready.stocks.get_mut(place).unwrap().waiting.push(key);
        }
        let other = any.for_snapshot("snap_3");
        // Once says nothing of the next time; twice within a short while does.
        for wanted in [0, FEW] {
            assert_eq!(ready.take(&other), None);
            assert_eq!(ready.stocks[&other].wanted, wanted);
        }
        let seldom = any.for_snapshot("snap_4");
        for _ in 0..2 {
            assert_eq!(ready.take(&seldom), None);
            for _ in 0..SOON {
                ready.take(&other);
            }
        }
        assert_eq!(ready.stocks[&seldom].wanted, 0);
        assert_eq!(ready.forget("snap_1"), [2]);
        assert!(!ready.stocks.contains_key(&own));
        assert_eq!(ready.take(&any), Some(1));
        assert_eq!(ready.take(&any), None);
    }

    #[test]
    fn the_place_that_nobody_asks_for_gives_way() {
        let mut ready = Ready::default();
        let places = [place(128), place(256), place(512)];
        for (key, place) in (1..).zip(&places) {
            ready.take(place);
            ready.stocks.get_mut(place).unwrap().waiting.push(key);
        }
        // The first was asked for again.
        assert_eq!(ready.take(&places[0]), Some(1));
        ready.stocks.get_mut(&places[0]).unwrap().waiting.push(1);
        for (place, gone) in [(1, 2), (2, 3)] {
            let key = ready.spare(Some(&places[0])).unwrap();
            assert_eq!(key, gone);
            ready.remove(&places[place], key);
        }
        // Never one of its own.
        assert_eq!(ready.spare(Some(&places[0])), None);
        assert_eq!(ready.stocks.len(), 1);
        // Unless there are to be fewer.
        assert_eq!(ready.spare(None), Some(1));
    }
}
