#!/usr/bin/env python3
"""Which frames of a video mlx-vlm shows to models that see images only, for tests/unit/media_kinds_test.c.

    python tools/goldens/stills.py MLX_VLM_FOLDER > tests/data/models/stills.json

Runs mlx-vlm's own functions; only OpenCV is replaced, by a video whose frames carry their numbers."""
import ast
import json
import math
import random
import sys
import types
from dataclasses import dataclass, fields
from typing import Any, Dict, List, Optional, Tuple
import numpy as np


class Cap:
    def __init__(self, path): self.total, self.fps = map(float, path.split(',')); self.at = 0
    def isOpened(self): return True
    def get(self, k): return {7: self.total, 5: self.fps, 3: 64, 4: 1}[k]
    def set(self, k, v): self.at = int(v)
    def read(self):
        f = np.zeros((1, 64, 3), np.uint8)
        for b in range(24): f[0, b, :] = (self.at >> b) & 1
        return True, f
    def release(self): pass
cv2 = types.ModuleType('cv2'); cv2.VideoCapture = Cap; cv2.CAP_PROP_FRAME_COUNT=7; cv2.CAP_PROP_FPS=5; cv2.CAP_PROP_FRAME_WIDTH=3; cv2.CAP_PROP_FRAME_HEIGHT=4; cv2.CAP_PROP_POS_FRAMES=1; cv2.COLOR_BGR2RGB=0
cv2.cvtColor = lambda f, c: f
sys.modules['cv2'] = cv2
base = sys.argv[1]
pkg = types.ModuleType('mm'); pkg.__path__ = []; sys.modules['mm'] = pkg
gen = types.ModuleType('mm.generate'); gen.__path__ = []; sys.modules['mm.generate'] = gen
u = types.ModuleType('mm.utils'); sys.modules['mm.utils'] = u
u.__dict__.update(math=math, np=np, dataclass=dataclass, fields=fields, Optional=Optional, Tuple=Tuple, List=List, Dict=Dict, Any=Any)
src = open(base + '/utils.py').read(); tree = ast.parse(src)
for node in tree.body:
    name = getattr(node, 'name', None) or (node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else None)
    if name in ('VideoSampling', 'DEFAULT_VIDEO_SAMPLING', 'VideoMetadata', 'load_video'):
        exec(compile(ast.Module([node], []), 'utils', 'exec'), u.__dict__)
v = types.ModuleType('mm.generate.video'); v.__package__ = 'mm.generate'; sys.modules['mm.generate.video'] = v
exec(compile(open(base + '/generate/video.py').read(), 'video', 'exec'), v.__dict__)
resolve_video_inputs, VideoSampling = v.resolve_video_inputs, u.VideoSampling
def index(img):
    a = np.asarray(img)
    return sum(int(a[0, b, 0]) << b for b in range(24))
random.seed(5); out = []
cases = [(8,24,None,None,None),(300,30,None,None,None),(14400,24,None,None,None),(2,25,None,None,None),(3,1,None,None,None),(50,25,4,None,None),(1000,29.97,1,None,8),(120,60,2,8,None),(90,30,0.5,6,None),(17999,29.97,2,None,32)]
for _ in range(30): cases.append((random.randint(2,20000), random.choice([1,10,12.5,24,25,29.97,30,60]), random.choice([None,0.5,1,2,3]), random.choice([None,None,4,6,10]), random.choice([None,None,2,5,8,12,24,32])))
for total, fps, asked, least, most in cases:
    if most and least and least > most: continue
    r = resolve_video_inputs(object(), [f"{total},{fps}"], fps=asked or 2.0, max_frames=most or 16, sampling=VideoSampling(fps=asked, min_frames=least, max_frames=most))
    out.append({"total": total, "fps": fps, "asked": asked, "least": least, "most": most, "sampled": r.sampled_count, "indices": [index(i) for i in r.images]})
json.dump({"stills": out}, sys.stdout, separators=(",", ":"))
