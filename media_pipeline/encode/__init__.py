"""ffmpeg and FFmpeg's libraries: looking into files in a limited child process, transcoding, thumbnails."""
