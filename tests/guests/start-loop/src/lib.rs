//! Never comes back from being instantiated: a constructor runs before any export can be called.

use trainer_sdk::{NoConfig, Plugin, Result, Run, Setup, TrainHooks};

extern "C" fn spin() {
    loop {
        core::hint::black_box(0);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = spin;

struct Spinning;

impl Plugin for Spinning {
    type Config = NoConfig;

    fn init(_: NoConfig, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl TrainHooks for Spinning {}

trainer_sdk::export!(Spinning: train);
