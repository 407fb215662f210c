# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Taking down what a run of tools/check or tools/demo mounted and left. The run has a directory of
# its own and has exported its name as CACHET_RUN, by which its processes are known.

# Processes of the run, or of a part of it that has a directory below, that outlived it.
marked_processes() {
	local file
	for file in /proc/[0-9]*/environ; do
		[[ $file == "/proc/$$/environ" || $file == "/proc/$BASHPID/environ" ]] && continue
		tr '\0' '\n' <"$file" | awk -v mark="CACHET_RUN=$CACHET_RUN/" \
			'index($0 "/", mark) == 1 { found = 1 } END { exit !found }' || continue
		file=${file#/proc/}
		echo "${file%/environ}"
	done 2>/dev/null
}

# "DEVICE-MINOR MOUNTPOINT" of what is mounted below a directory, the newest first; the mount point
# as mountinfo has it, where a blank is \040.
mounts_below() {
	awk -v dir="$1/" 'index($5, dir) == 1 { split($3, number, ":"); print number[2], $5 }' \
		/proc/self/mountinfo | tac
}

# sweep DIRECTORY: unmount all below it and end the run's processes; 1 if there was a mount or a
# daemon. A client of a dead daemon hangs until its connection is aborted, so that comes first.
sweep() {
	local minor point pid found=
	while read -r minor point; do
		printf -v point %b "$point"
		found=1
		if ((EUID == 0)); then
			echo 1 >"/sys/fs/fuse/connections/$minor/abort"
			umount -l "$point"
		else
			fusermount3 -u -z "$point"
		fi
	done < <(mounts_below "$1") 2>/dev/null
	for pid in $(marked_processes); do
		[[ $(readlink "/proc/$pid/exe") == */cachetd* ]] && found=1
		kill -KILL "$pid"
	done 2>/dev/null
	[[ ! $found ]]
}
