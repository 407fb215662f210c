/* SPDX-License-Identifier: MIT */
/*
 * What /proc tells of the processes that use a file. The kernel names threads in its requests;
 * those who ask who holds a file want to know of processes.
 */
#pragma once

#include <sys/types.h>

#include <cachet/ioctl.h>

/**
 * process_of_thread() - the process that a thread belongs to
 * @thread: that lives, as one does that waits for the answer to a request; 0 when it is not known
 * Context: one cheap system call for the first thread of a process; reads /proc for others.
 * Return: its number; @thread itself when /proc does not tell.
 */
pid_t process_of_thread(pid_t thread);

/**
 * process_comm() - the command of a process
 * @comm: filled in; empty when the process is gone
 * Context: reads /proc.
 */
void process_comm(pid_t pid, char comm[CACHET_COMM_SIZE]);

/**
 * process_uid() - the user that a process runs as
 * Context: reads /proc.
 * Return: the user; -1 when the process is gone.
 */
uid_t process_uid(pid_t pid);
