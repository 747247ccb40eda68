//! Does nothing at every step: what a call costs by itself (`make bench`).

use trainer_sdk::{Ctx, NoConfig, Plugin, Result, Run, Setup, StepHooks};

struct Idle;

impl Plugin for Idle {
    type Config = NoConfig;

    fn init(_: NoConfig, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl StepHooks for Idle {
    fn on_step_end(&mut self, _: &Ctx<'_>) -> Result<()> {
        Ok(())
    }
}

trainer_sdk::export!(Idle: step);
