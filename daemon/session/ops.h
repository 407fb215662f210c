/* SPDX-License-Identifier: MIT */
/*
 * The table that libfuse calls, and what is settled with the kernel at INIT.
 */
#pragma once

#include <fuse_lowlevel.h>

/**
 * session_operations() - the table of operations
 * Context: any.
 * Return: borrows a table that lives for ever.
 */
const struct fuse_lowlevel_ops *session_operations(void);
