"""V-JEPA 2-AC: a world model that predicts what a frozen encoder will see after an action, and plans in that.

A predictor reads the features of each frame beside the action taken there and the state of the body, and predicts
the next frame's; frames attend to themselves and to earlier ones. Actions are planned by the cross-entropy method:
those whose predicted features come nearest to the features of a goal image.
Assran et al., "V-JEPA 2: Self-Supervised Video Models Enable Understanding, Prediction and Planning", 2025.

    filmstrip train control.vjepa_ac:giant_droid --data.path PATH --init vitg.pt
    filmstrip plan RUN START GOAL --state 0.4 0.0 0.3 0 0 0 0
    filmstrip eval RUN --protocol reaching

The loss is the mean absolute error of predicted features, normalised token by token, once from all true frames and
once, added to it, from the predictor's own over two steps. ``--init`` reads the encoder of a run of
``pretraining.vjepa``, of the published trainings' files (the teacher), of V-JEPA 2 on the Hub, or encoder and
predictor of the published ``vjepa2-ac-vitg.pt``. Videos have actions and states beside them: ``NAME.actions.npz``
with a row for each frame, as ``filmstrip data make pushing`` writes them.

Positions are V-JEPA 2's, rotary in time, height and width; tokens of actions and states turn by their time alone. The
published network has an unused layer for the camera's pose; ours has one where ``extrinsics_dim`` asks for it.

Where we deviate: crops are central squares (published: central, 1.35 times as wide as high, squeezed to a square).
A planned rotation is added to the state's angles (published: rotations are multiplied, but its planner keeps them
zero). The published planner sets planned closings of the gripper below 0.25 to zero; ours leaves them as they are.

The paper reports on a Franka arm: reach 100%; grasp a cup 60%, a box 20%; pick and place a cup 80%, a box 50%.

Measured here (``filmstrip claims vjepa_ac_planning``: a thick arm on one small table, an untrained encoder): 76% of
the goals are reached in four actions, 12% with an untrained predictor, none at random; the true way reaches all. With
the set's thin arm and a look for each table, a predictor of this size learns in 400 steps next to nothing of actions
(``docs/log.md``).
"""

from filmstrip.systems.control.vjepa_ac.model import VJEPAAC, VJEPAACConfig
from filmstrip.systems.control.vjepa_ac.planning import CrossEntropy
from filmstrip.systems.control.vjepa_ac.presets import giant_droid, large_own, table, tiny
