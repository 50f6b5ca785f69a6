"""ffmpeg and FFmpeg's libraries: probing files in a limited child process, transcoding, thumbnails."""
