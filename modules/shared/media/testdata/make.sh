#!/bin/sh
# Makes the clips of this folder again (ffmpeg 5.1 with x264, x265, SVT-AV1 and libopus), and with each
# what ffprobe says of its packets.
set -eu
cd "$(dirname "$0")"
video="-f lavfi -i testsrc=size=160x90:rate=25:duration=1"
audio="-f lavfi -i sine=frequency=440:sample_rate=48000:duration=1"
x264="-c:v libx264 -pix_fmt yuv420p -preset veryfast -crf 38 -x264-params bframes=3:b-pyramid=normal:b-adapt=0:keyint=12:scenecut=0"
aac="-c:a aac -b:a 24k"
exact="-fflags +bitexact -flags:v +bitexact -flags:a +bitexact -map_metadata -1 -y"
run() { ffmpeg -hide_banner -loglevel error "$@"; }

run $video $audio $x264 $aac $exact bframes.mp4
run -i bframes.mp4 -c copy -movflags +faststart $exact faststart.mp4
run -i bframes.mp4 -c copy -movflags +frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets $exact fragmented.mp4
run -i bframes.mp4 -c copy -movflags +frag_keyframe+delay_moov+omit_tfhd_offset -use_editlist 1 $exact fragmented-edits.mp4
# Cut in the middle of a GOP: an edit list hides the pictures before the cut.
run -ss 0.6 -i bframes.mp4 -c copy -movflags +faststart $exact cut.mp4
run $video $audio -c:v libx265 -pix_fmt yuv420p -preset veryfast -crf 40 -x265-params log-level=none:bframes=3:keyint=12:info=0 \
    -tag:v hvc1 $aac $exact hevc.mp4
run $video -c:v libx265 -preset ultrafast -crf 45 -pix_fmt yuv420p10le -x265-params log-level=none:info=0 \
    -tag:v hev1 $exact hevc10.mp4
run $audio -c:a libopus -b:a 24k $exact opus.mp4
run $audio -c:a aac -b:a 24k -ar 44100 -ac 2 $exact aac44100.mp4
run $video -c:v libsvtav1 -preset 12 -crf 60 $exact av1.mp4 2>/dev/null
# Interlaced 1920x1080 needs cropping; 60000/1001 fields a second.
run -f lavfi -i color=gray:size=1920x1080:rate=30000/1001:duration=0.2 -c:v libx264 -preset veryfast -crf 45 \
    -x264-params interlaced=1:bframes=0 $exact interlaced.mp4
for clip in *.mp4; do
    ffprobe -hide_banner -loglevel error -show_entries packet=codec_type,pts,dts,size,flags,data_hash \
        -show_data_hash adler32 -of csv=p=0 "$clip" | grep . | sed 's/,$//' >"${clip%.mp4}.packets"
done
