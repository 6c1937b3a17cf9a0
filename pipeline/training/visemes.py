"""What the mouth does for every sound of Kokoro's alphabet: lip gap, jaw and lip shapes, and how firmly.

Gaps and jaw follow the means of the GRID speaker, sound by sound, at about 85 % of that careful reading;
what a frontal recording hardly shows (rolled lips, wide lips) follows JALI (2016). `gap` is the inner-lip
gap in cm beyond the closed rest, the other values are weights of ICT-FaceKit shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

ARTICULATORS = (
    "gap", "jawOpen", "mouthFunnel", "mouthPucker", "mouthStretch", "mouthSmile",
    "mouthUpperUp", "mouthLowerDown",
    "mouthRollUpper", "mouthRollLower", "mouthPress",
)  # fmt: skip
OPENING_CM = {
    "jawOpen": 3.28, "mouthClose": -3.89, "mouthFunnel": 1.37, "mouthPucker": -0.05, "mouthLowerDown": 0.68,
    "mouthUpperUp": 0.70, "mouthRollUpper": 0.18, "mouthRollLower": -0.37, "mouthPress": -0.26,
}  # fmt: skip
"""What a full weight (both sides) adds to the gap between the inner lips of ICT-FaceKit."""
Shape = dict[str, float]


@dataclass(frozen=True)
class Viseme:
    """Target shape, how firmly it holds against others, whether lips meet; diphthongs glide to `end`."""

    shape: Shape
    strength: float = 1.0
    closes: bool = False
    end: Shape | None = None


def _shape(gap: float, jaw: float, **lips: float) -> Shape:
    return {
        "gap": gap,
        "jawOpen": jaw,
        **{f"mouth{name[0].upper()}{name[1:]}": v for name, v in lips.items()},
    }


_I = _shape(0.80, 0.16, stretch=0.18, smile=0.24, upperUp=0.11, lowerDown=0.10)
_IH = _shape(0.72, 0.17, stretch=0.10, smile=0.10, upperUp=0.08, lowerDown=0.08)
_EH = _shape(1.02, 0.24, stretch=0.12, smile=0.10, upperUp=0.13, lowerDown=0.12)
_AE = _shape(1.12, 0.27, stretch=0.18, smile=0.05, upperUp=0.14, lowerDown=0.14)
_AH = _shape(1.22, 0.31, upperUp=0.10, lowerDown=0.10)
_AW = _shape(0.92, 0.25, funnel=0.28, pucker=0.15)
_U = _shape(0.36, 0.11, pucker=0.58, funnel=0.20)
_UH = _shape(0.52, 0.15, pucker=0.32, funnel=0.18)
_LABIAL = Viseme(_shape(0.0, 0.10, press=0.22, rollLower=0.14, rollUpper=0.10), 3.0, closes=True)
_DENTAL_LIP = Viseme(_shape(0.28, 0.09, rollLower=0.42, upperUp=0.18), 3.0)
_TONGUE = Viseme(_shape(0.62, 0.14, upperUp=0.12, lowerDown=0.10), 0.8)
_HISS = Viseme(_shape(0.62, 0.10, stretch=0.12, smile=0.08, upperUp=0.18, lowerDown=0.20), 1.3)
_HUSH = Viseme(_shape(0.70, 0.11, funnel=0.38, pucker=0.14, upperUp=0.10, lowerDown=0.08), 1.5)
_BACK = Viseme(_shape(0.74, 0.17, upperUp=0.08), 0.5)

VISEMES: dict[str, Viseme] = {
    **dict.fromkeys("pbm", _LABIAL), **dict.fromkeys("fv", _DENTAL_LIP), **dict.fromkeys("tdnlT", _TONGUE),
    **dict.fromkeys("sz", _HISS), **dict.fromkeys("ʃʒʤʧ", _HUSH), **dict.fromkeys("kɡŋ", _BACK),
    **dict.fromkeys("θð", Viseme(_shape(0.50, 0.11, lowerDown=0.14, upperUp=0.08), 1.0)),
    "h": Viseme(_shape(0.80, 0.19), 0.3),
    "ɹ": Viseme(_shape(0.42, 0.13, pucker=0.18, funnel=0.20), 1.1),
    "w": Viseme(_shape(0.18, 0.10, pucker=0.58, funnel=0.12), 2.2),
    "j": Viseme(_shape(0.58, 0.12, smile=0.18, stretch=0.12, upperUp=0.08), 1.0),
    "i": Viseme(_I), "ɪ": Viseme(_IH), "ᵻ": Viseme(_IH, 0.7), "ɛ": Viseme(_EH), "æ": Viseme(_AE),
    "a": Viseme(_AH), "ɑ": Viseme(_AH), "ɒ": Viseme({**_AH, "mouthFunnel": 0.18}), "ɔ": Viseme(_AW),
    "u": Viseme(_U, 1.5), "ʊ": Viseme(_UH), "ʌ": Viseme(_shape(0.98, 0.24, lowerDown=0.08)),
    "ɐ": Viseme(_shape(0.85, 0.21), 0.9), "ə": Viseme(_shape(0.62, 0.15), 0.7),
    "ᵊ": Viseme(_shape(0.50, 0.12), 0.5),
    "ɜ": Viseme(_shape(0.66, 0.16, funnel=0.16, pucker=0.08)),
    "A": Viseme(_EH, end=_I), "I": Viseme(_AH, end=_IH), "O": Viseme(_AW, end=_U), "Q": Viseme(_AW, end=_U),
    "W": Viseme(_AH, end=_UH), "Y": Viseme(_AW, end=_IH),
}  # fmt: skip
SILENCE = Viseme({}, 1.2)
VOWELS = frozenset("iɪᵻɛæaɑɒɔuʊʌɐəɜAIOQWY")
