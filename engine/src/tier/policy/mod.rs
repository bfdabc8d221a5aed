//! seam only, replaced at merge
use std::fmt::Debug;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u32);
impl Access {
    pub(crate) fn new(now: u32) -> Self {
        Self(now << 4)
    }
    #[inline]
    pub(crate) fn touched(self, now: u32) -> Self {
        Self(now << 4 | (self.0 & 15).saturating_add(1).min(15))
    }
    pub(crate) fn frequency(self) -> u8 {
        (self.0 & 15) as u8
    }
    pub(crate) fn age(self, now: u32) -> u32 {
        (now << 4).wrapping_sub(self.0 & !15) >> 4
    }
}
pub(crate) trait Residents {
    fn slots_end(&self) -> u32;
    fn access(&self, slot: u32) -> Option<Access>;
    fn set_access(&self, slot: u32, access: Access);
    fn key_hash(&self, slot: u32) -> u64;
    fn now(&self) -> u32;
}
pub(crate) trait Policy: Send {
    fn admit(&mut self, key_hash: u64, full: bool, residents: &dyn Residents) -> bool;
    fn inserted(&mut self, slot: u32, key_hash: u64);
    fn removed(&mut self, slot: u32);
    fn choose(&mut self, residents: &dyn Residents) -> Option<u32>;
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PolicyKind {
    #[default]
    Lru,
}
struct Clock(u32);
impl PolicyKind {
    pub(crate) fn build(self, _capacity: u32) -> Box<dyn Policy> {
        Box::new(Clock(0))
    }
}
impl Policy for Clock {
    fn admit(&mut self, _: u64, _: bool, _: &dyn Residents) -> bool {
        true
    }
    fn inserted(&mut self, _: u32, _: u64) {}
    fn removed(&mut self, _: u32) {}
    fn choose(&mut self, residents: &dyn Residents) -> Option<u32> {
        for _ in 0..residents.slots_end() {
            self.0 = (self.0 + 1) % residents.slots_end();
            if residents.access(self.0).is_some() {
                return Some(self.0);
            }
        }
        None
    }
}
pub(crate) const HIGH_WATER: f64 = 0.90;
pub(crate) const LOW_WATER: f64 = 0.85;
pub(crate) const TICKS_PER_CAPACITY: u32 = 4096;

impl std::str::FromStr for PolicyKind {
    type Err = String;
    fn from_str(_: &str) -> Result<Self, String> {
        Ok(Self::Lru)
    }
}
