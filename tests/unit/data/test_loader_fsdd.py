"""Spoken digits in small: a tone lights the band of its pitch, in every take's order."""

import wave
from pathlib import Path

import numpy as np
import pytest

from graft.data.domain import DomainData
from graft.data.public.archives import open_originals
from graft.data.public.fsdd import LOG_CENTRE, LOG_FLOOR, LOG_SCALE, read_fsdd
from graft.data.public.recordings import Tally
from graft.errors import DatasetFormatError


def write_tone(path: Path, pitch_hz: float, duration_s: float, rate_hz: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    audio = (10_000 * np.sin(2 * np.pi * pitch_hz * time_s)).astype("<i2")
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(rate_hz)
        recording.writeframes(audio.tobytes())


def load(folder: Path) -> list[DomainData]:
    with open_originals(folder) as originals:
        return list(read_fsdd(originals, Tally()))


def test_a_speaker_is_a_domain_ordered_by_take_then_digit(tmp_path: Path) -> None:
    for name in ("1_theo_10", "0_theo_2", "7_theo_2", "3_george_0"):
        write_tone(tmp_path / "recordings" / f"{name}.wav", 440, 0.2)
    george, theo = load(tmp_path)
    assert (george.domain_id, theo.domain_id) == ("george", "theo")
    assert theo.y_N.tolist() == [0, 7, 1]
    assert theo.group_N.tolist() == [0, 1, 2]
    assert theo.x.shape == (3, 32, 64)


def test_a_higher_tone_lights_a_higher_band(tmp_path: Path) -> None:
    for digit, pitch_hz in enumerate((200, 500, 1000, 3000)):
        write_tone(tmp_path / f"{digit}_theo_0.wav", pitch_hz, 1.0)
    (theo,) = load(tmp_path)
    brightest = theo.x.mean(axis=2).argmax(axis=1)
    assert (np.diff(brightest) > 0).all()


def test_a_short_take_is_centred_in_silence_and_a_long_one_is_cut(tmp_path: Path) -> None:
    write_tone(tmp_path / "0_theo_0.wav", 1000, 0.2)
    write_tone(tmp_path / "0_theo_1.wav", 1000, 2.0)
    (theo,) = load(tmp_path)
    silence = (np.log(LOG_FLOOR) - LOG_CENTRE) / LOG_SCALE
    # 0.2 s of 0.655 s: 0.2275 s of silence at both ends, 20 whole frames and more.
    np.testing.assert_allclose(theo.x[0, :, :20], silence, rtol=1e-5)
    np.testing.assert_allclose(theo.x[0, :, -20:], silence, rtol=1e-5)
    assert (theo.x[1].max(axis=0) > 1).all()


def test_another_rate_and_no_wav_at_all_are_refused_by_name(tmp_path: Path) -> None:
    write_tone(tmp_path / "a" / "0_theo_0.wav", 440, 0.2, rate_hz=16_000)
    with pytest.raises(DatasetFormatError, match="0_theo_0"):
        load(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0_theo_0.wav").write_bytes(b"no sound")
    with pytest.raises(DatasetFormatError, match="0_theo_0"):
        load(tmp_path / "b")
