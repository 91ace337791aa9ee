"""The rewards of published systems, side by side.

A preset is one function: columns in, parts out.

* ``deepeyes(completions, answers, *, questions, judge, mode)``: the first argument is always the batch of
  completions, the second the gold answers; all other arguments are keywords. Columns have one entry per
  completion. Group-level rewards take `groups`, one hashable value per completion.
* It returns a named tuple of (B,) float64 arrays: the terms, and `total`, which combines them. A preset with
  a single term returns that array.
* ``mode="exact"`` (the default) reproduces the published code, bugs included. ``mode="strict"`` implements
  the same idea without the loopholes that `SYSTEMS` lists.

Completions. "exact" reads what the original reads: the decoded response with its special tokens, or the texts
of the assistant turns; lists of messages are rendered with Qwen2.5-VL's template. In "strict", only an image
in a tool message proves that a tool ran; a text has no tool messages, so no tool counts as run.

NaN. The original gave no number: it raised, filtered the rollout, or its judge failed. A failure is never
scored 0, which would punish the model, and no model output raises. Bad gold data and bad options raise and
name the argument. If a tool (`lfpc_rewards.presets.tools`) refuses or raises, the box is None.

Injected parts. A judge is a callable for a batch, ``judge(questions, answers, golds)``, that returns one
text, verdict or None (failed) per answer; texts are read as in the original, in "strict" only if they are one
plain verdict. `batch_judge` converts an asynchronous judge of the core. A second model that sees only a crop
(`ergo`) is a callable of the same kind (`CropReader`). Math libraries are passed as modules
(``math=math_verify``). Nothing here opens a connection, imports such a library, or evaluates text as code.

Code. One module per system, which reads like its formula: `SYSTEM` (terms, gates, blind spots, loopholes,
deviations), the parts, the functions. The core's `_tags` finds the tags of a whole batch; the text between
them is read row by row in plain Python. Modules with an underscore hold shared code: `_completions`,
`_layout` (well-formedness), `_strict`, `_judging`, `_boxes` (boxes in text, each system's IoU),
`_final_answer`, `_similarity`, `_math`, `_once`, `_shaping` (lengths and repetition), `_groups`. Only
Vision-R1, whose original takes seconds, has compiled kernels, and the assignment (`_assignment`) that it
shares with VisionReasoner. Systems do not import each other; only a port imports its original.
"""

from lfpc_rewards.presets import tools
from lfpc_rewards.presets._judging import BatchJudge, Reply, batch_judge
from lfpc_rewards.presets._math import MathLibrary
from lfpc_rewards.presets._system import Loophole, Mode, System
from lfpc_rewards.presets.systems import chain_of_focus as _chain_of_focus
from lfpc_rewards.presets.systems import deepeyes as _deepeyes
from lfpc_rewards.presets.systems import deepeyes_ports as _deepeyes_ports
from lfpc_rewards.presets.systems import deepeyes_v2 as _deepeyes_v2
from lfpc_rewards.presets.systems import easyr1 as _easyr1
from lfpc_rewards.presets.systems import ergo as _ergo
from lfpc_rewards.presets.systems import gui_r1 as _gui_r1
from lfpc_rewards.presets.systems import mini_o3 as _mini_o3
from lfpc_rewards.presets.systems import ms_swift as _ms_swift
from lfpc_rewards.presets.systems import perception_r1 as _perception_r1
from lfpc_rewards.presets.systems import pixel_reasoner as _pixel_reasoner
from lfpc_rewards.presets.systems import se_gui as _se_gui
from lfpc_rewards.presets.systems import seg_zero as _seg_zero
from lfpc_rewards.presets.systems import thyme as _thyme
from lfpc_rewards.presets.systems import treevgr as _treevgr
from lfpc_rewards.presets.systems import trl as _trl
from lfpc_rewards.presets.systems import ui_r1 as _ui_r1
from lfpc_rewards.presets.systems import vision_r1 as _vision_r1
from lfpc_rewards.presets.systems import visionthink as _visionthink
from lfpc_rewards.presets.systems import visual_rft as _visual_rft
from lfpc_rewards.presets.systems import vlm_r1 as _vlm_r1
from lfpc_rewards.presets.systems import zwz as _zwz
from lfpc_rewards.presets.systems.chain_of_focus import (
    ChainOfFocusParts,
    chain_of_focus,
    chain_of_focus_math,
)
from lfpc_rewards.presets.systems.deepeyes import DeepEyesParts, deepeyes, deepeyes_math, deepeyes_reasoning
from lfpc_rewards.presets.systems.deepeyes_ports import ms_swift_deepeyes, verl_deepeyes
from lfpc_rewards.presets.systems.deepeyes_v2 import (
    DeepEyesV2Parts,
    deepeyes_v2,
    deepeyes_v2_math,
    deepeyes_v2_search,
)
from lfpc_rewards.presets.systems.easyr1 import (
    EasyR1DapoParts,
    EasyR1Parts,
    easyr1_dapo,
    easyr1_math,
    easyr1_r1v,
)
from lfpc_rewards.presets.systems.ergo import CropReader, ErgoParts, ergo
from lfpc_rewards.presets.systems.gui_r1 import GuiR1Parts, gui_r1
from lfpc_rewards.presets.systems.mini_o3 import (
    MiniO3Format,
    MiniO3Parts,
    mini_o3,
    mini_o3_choice,
    mini_o3_format,
)
from lfpc_rewards.presets.systems.ms_swift import (
    ms_swift_cosine,
    ms_swift_format,
    ms_swift_overlong,
    ms_swift_repetition,
)
from lfpc_rewards.presets.systems.perception_r1 import (
    PerceptionR1Parts,
    perception_r1,
    perception_r1_think_format,
)
from lfpc_rewards.presets.systems.pixel_reasoner import (
    PixelReasonerParts,
    pixel_reasoner,
    pixel_reasoner_accuracy,
    pixel_reasoner_shaping,
)
from lfpc_rewards.presets.systems.se_gui import SeGuiParts, se_gui
from lfpc_rewards.presets.systems.seg_zero import SegZeroParts, VisionReasonerParts, seg_zero, vision_reasoner
from lfpc_rewards.presets.systems.thyme import ThymeParts, thyme
from lfpc_rewards.presets.systems.treevgr import treevgr
from lfpc_rewards.presets.systems.trl import (
    trl_accuracy,
    trl_cosine,
    trl_overlong,
    trl_reasoning_accuracy,
    trl_repetition,
    trl_think_format,
)
from lfpc_rewards.presets.systems.ui_r1 import UiR1Parts, ui_r1
from lfpc_rewards.presets.systems.vision_r1 import VisionR1Parts, vision_r1
from lfpc_rewards.presets.systems.visionthink import VisionThinkParts, visionthink, visionthink_shaping
from lfpc_rewards.presets.systems.visual_rft import (
    VisualRftLisaParts,
    VisualRftParts,
    visual_rft,
    visual_rft_lisa,
)
from lfpc_rewards.presets.systems.vlm_r1 import (
    VlmR1Parts,
    vlm_r1,
    vlm_r1_accuracy,
    vlm_r1_format,
    vlm_r1_repetition,
)
from lfpc_rewards.presets.systems.zwz import ZwzParts, zwz

SYSTEMS: tuple[System, ...] = (
    _deepeyes.SYSTEM,
    _deepeyes_ports.VERL,
    _deepeyes_ports.MS_SWIFT,
    _deepeyes_v2.SYSTEM,
    _chain_of_focus.SYSTEM,
    _mini_o3.SYSTEM,
    _pixel_reasoner.SYSTEM,
    _vlm_r1.SYSTEM,
    _visionthink.SYSTEM,
    _zwz.SYSTEM,
    _easyr1.SYSTEM,
    _trl.SYSTEM,
    _ms_swift.SYSTEM,
    _thyme.SYSTEM,
    _ergo.SYSTEM,
    _visual_rft.SYSTEM,
    _vision_r1.SYSTEM,
    _seg_zero.SEG_ZERO,
    _seg_zero.VISION_REASONER,
    _perception_r1.SYSTEM,
    _treevgr.SYSTEM,
    _se_gui.SYSTEM,
    _gui_r1.SYSTEM,
    _ui_r1.SYSTEM,
)
"""One record per system."""

__all__ = [
    "SYSTEMS",
    "BatchJudge",
    "ChainOfFocusParts",
    "CropReader",
    "DeepEyesParts",
    "DeepEyesV2Parts",
    "EasyR1DapoParts",
    "EasyR1Parts",
    "ErgoParts",
    "GuiR1Parts",
    "Loophole",
    "MathLibrary",
    "MiniO3Format",
    "MiniO3Parts",
    "Mode",
    "PerceptionR1Parts",
    "PixelReasonerParts",
    "Reply",
    "SeGuiParts",
    "SegZeroParts",
    "System",
    "ThymeParts",
    "UiR1Parts",
    "VisionR1Parts",
    "VisionReasonerParts",
    "VisionThinkParts",
    "VisualRftLisaParts",
    "VisualRftParts",
    "VlmR1Parts",
    "ZwzParts",
    "batch_judge",
    "chain_of_focus",
    "chain_of_focus_math",
    "deepeyes",
    "deepeyes_math",
    "deepeyes_reasoning",
    "deepeyes_v2",
    "deepeyes_v2_math",
    "deepeyes_v2_search",
    "easyr1_dapo",
    "easyr1_math",
    "easyr1_r1v",
    "ergo",
    "gui_r1",
    "mini_o3",
    "mini_o3_choice",
    "mini_o3_format",
    "ms_swift_cosine",
    "ms_swift_deepeyes",
    "ms_swift_format",
    "ms_swift_overlong",
    "ms_swift_repetition",
    "perception_r1",
    "perception_r1_think_format",
    "pixel_reasoner",
    "pixel_reasoner_accuracy",
    "pixel_reasoner_shaping",
    "se_gui",
    "seg_zero",
    "thyme",
    "tools",
    "treevgr",
    "trl_accuracy",
    "trl_cosine",
    "trl_overlong",
    "trl_reasoning_accuracy",
    "trl_repetition",
    "trl_think_format",
    "ui_r1",
    "verl_deepeyes",
    "vision_r1",
    "vision_reasoner",
    "visionthink",
    "visionthink_shaping",
    "visual_rft",
    "visual_rft_lisa",
    "vlm_r1",
    "vlm_r1_accuracy",
    "vlm_r1_format",
    "vlm_r1_repetition",
    "zwz",
]


def __dir__() -> list[str]:
    return __all__
