"""Speech in other languages, and songs, with the time of every sound: spoken by Festival, if it is installed.

Festival joins pieces of recorded voices, so what is heard was said by a person of that language; pitch and timing are
made. On Debian: apt install festival festvox-kallpc16k festvox-italp16k festvox-itapc16k festvox-czech-machac
festvox-suopuhe-lj festvox-ru
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.evaluation.material import FPS, SAMPLES_PER_FRAME, Clip, MaterialError, Sound, read_audio

TIMEOUT_S = 60
_CLOSING = re.compile(r"([pbm])\1?h?:?\d*")
"""p, b, m as the voices write them: long, doubled (soft in Russian), breathed."""
_PAUSES = ("#", "pau", "_")

_READ = '(set! said (SynthText "{text}"))'
_SING = "(require 'singing-mode)(define (keep u) (set! said u) u)(set! tts_hooks (list utt.synth keep))"
_SONG = (
    '<?xml version="1.0"?><!DOCTYPE SINGING PUBLIC "-//SINGING//DTD SINGING mark up//EN" "Singing.v0_1.dtd" []>'
    '<SINGING BPM="100">{notes}</SINGING>'
)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """name: as Festival knows it. texts: sentences in `encoding`, or songs: `words` of (pitches, beats, word), with
    commas between the syllables of a word."""

    language: str
    name: str
    encoding: str
    texts: Sequence[str] = ()
    songs: Sequence[Sequence[tuple[str, str, str]]] = ()


VOICES = (
    Voice(
        language="English",
        name="kal_diphone",
        encoding="ascii",
        texts=(
            "Please bring my brother a bottle of plum jam from the market.",
            "Maybe the number of people on the bus will double by September.",
            "Pam and Bob jumped from the bridge into a pool of pale mud.",
            "My mother made a simple supper of peppers, ham and brown bread.",
        ),
    ),
    Voice(
        language="Italian, a woman",
        name="lp_diphone",
        encoding="iso-8859-1",
        texts=(
            "Buongiorno, mi chiamo Maria e vengo da una piccola borgata sopra Bologna.",
            "Mio padre compra sempre pane, pomodori e prosciutto al mercato.",
            "I bambini mangiano la pappa prima di andare a dormire.",
            "Abbiamo ballato tutta la sera in piazza con gli amici di Bruno.",
        ),
    ),
    Voice(
        language="Italian, a man",
        name="pc_diphone",
        encoding="iso-8859-1",
        texts=(
            "Domani mattina parto per Palermo con il primo battello.",
            "Il problema non sembra semplice, ma possiamo provare ancora.",
            "La mamma ha preparato una buona zuppa di piselli e patate.",
            "Piove da mezzogiorno e la pompa dell'acqua non funziona bene.",
        ),
    ),
    Voice(
        language="Czech",
        name="czech_machac",
        encoding="iso-8859-2",
        texts=(
            "Dobrý den, jmenuji se Petr a bydlím v Praze.",
            "Maminka upekla bábovku a připravila kompot pro babičku.",
            "Po obědě jsme šli pomalu přes most do parku.",
            "Můj bratr má modrý balón a malého psa.",
        ),
    ),
    Voice(
        language="Finnish",
        name="suo_fi_lj_diphone",
        encoding="iso-8859-1",
        texts=(
            "Minun nimeni on Pekka ja asun Tampereella.",
            "Mummo tuo pullaa ja omenapiirakkaa lapsille.",
            "Lumi peittää pihan ja poika pomppii portaita ylös.",
            "Meri on tyyni mutta pimeys tulee pian.",
        ),
    ),
    Voice(
        language="Russian",
        name="msu_ru_nsh_clunits",
        encoding="utf-8",
        texts=(
            "Добрый день, меня зовут Пётр, и я живу в большом городе.",
            "Мама помыла посуду и приготовила обед для бабушки.",
            "Мой брат любит бегать по парку после работы.",
            "Пожалуйста, передайте мне белый хлеб и немного масла.",
        ),
    ),
    Voice(
        language="sung, in English",
        name="kal_diphone",
        encoding="ascii",
        songs=(
            (
                ("C3", "1", "baa"), ("C3", "1", "baa"), ("G3", "1", "black"), ("G3", "1", "sheep"),
                ("A3", "0.5", "have"), ("B3", "0.5", "you"), ("C4,A3", "0.5,0.5", "any"), ("G3", "2", "wool"),
            ),
            (
                ("E3,D3", "1,1", "mary"), ("C3", "1", "had"), ("D3", "1", "a"), ("E3,E3", "1,1", "little"),
                ("E3", "2", "lamb"), ("D3,D3", "1,1", "little"), ("D3", "2", "lamb"),
            ),
            (
                ("G2", "1", "my"), ("E3,D3", "1.5,0.5", "bonny"), ("C3", "1", "lies"), ("D3,C3", "1,1", "over"),
                ("A2", "1", "the"), ("G2,E2", "1,3", "ocean"),
            ),
            (
                ("C3", "1", "pop"), ("D3", "1", "goes"), ("E3", "0.5", "the"), ("F3,D3", "1,1", "weasel"),
                ("C3", "2", "boom"), ("G3", "1", "bim"), ("E3", "1", "bam"), ("C3", "2", "bum"),
            ),
        ),
    ),
)  # fmt: skip


def available(voice: Voice) -> bool:
    """Whether Festival and this voice of it are installed."""
    program = shutil.which("festival")
    if program is None:
        return False
    answer = subprocess.run(
        [program, "-b", f"(voice_{voice.name})"], capture_output=True, timeout=TIMEOUT_S, check=False
    )
    return answer.returncode == 0 and b"unbound variable" not in answer.stderr


def clips(voice: Voice) -> list[Clip]:
    """All that the voice says, each with its sounds; silence at their ends makes them equally long.

    Raises:
        MaterialError: Festival says nothing; the message has its complaint.
    """
    made = [_say(voice, _READ.format(text=text)) for text in voice.texts]
    made += [_say(voice, _SING, song=_song(words)) for words in voice.songs]
    frames = max(len(pcm) for pcm, _ in made) // SAMPLES_PER_FRAME + FPS // 2
    return [
        Clip(
            name=f"{voice.language} {number}",
            corpus="festival",
            pcm=np.pad(pcm, (0, frames * SAMPLES_PER_FRAME - len(pcm))),
            sounds=sounds,
        )
        for number, (pcm, sounds) in enumerate(made, 1)
    ]


def _song(words: Sequence[tuple[str, str, str]]) -> str:
    notes = [
        f'<PITCH NOTE="{pitch}"><DURATION BEATS="{beats}">{word}</DURATION></PITCH>'
        for pitch, beats, word in words
    ]
    return _SONG.format(notes="".join(notes))


def _say(voice: Voice, command: str, song: str = "") -> tuple[np.ndarray, tuple[Sound, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        lines = [f"(voice_{voice.name})", command]
        if song:
            (here / "song.xml").write_text(song, encoding="ascii")
            lines.append('(tts_file "song.xml" \'singing)')
        lines += ['(utt.save.wave said "said.wav" \'riff)', '(utt.save.segs said "said.segs")']
        (here / "say.scm").write_bytes("\n".join(lines).encode(voice.encoding))
        answer = subprocess.run(
            ["festival", "-b", "say.scm"], cwd=here, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        wave, times = here / "said.wav", here / "said.segs"
        if not (wave.is_file() and times.is_file()):
            complaint = answer.stderr.decode(errors="replace").strip()[-300:]
            raise MaterialError(f"Festival's voice {voice.name} ({voice.language}) says nothing: {complaint}")
        return read_audio(wave), read_sounds(times.read_text(encoding=voice.encoding, errors="replace"))


def read_sounds(segments: str) -> tuple[Sound, ...]:
    """Festival's list of segments, after its `#`: a line each with end in seconds, a colour and the sound."""
    sounds, start = [], 0.0
    for line in segments.partition("#")[2].splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        end, name = round(FPS * float(fields[0]), 6), fields[2]  # 0.28 s are 7 frames, not 7.0000001
        closing = _CLOSING.fullmatch(name)
        label = closing[1] if closing else "sil" if name in _PAUSES else name
        sounds.append(Sound(label=label, first=int(start), last=int(np.ceil(end))))
        start = end
    return tuple(sounds)
