/* SPDX-License-Identifier: MIT */
/*
 * Where releases of libfuse from 3.17 on differ.
 *
 * Only from 3.18.3 on are we told that a write or a truncation has to drop the set-id bits. With an
 * older one HANDLE_KILLPRIV_V2 must stay off: the kernel drops them itself where it writes, at a
 * price, and for what comes to us we go by who asks.
 */
#pragma once

#include <fuse_lowlevel.h>

#include <stdbool.h>

/*
 * 3.17 knows nothing of io_uring. Of 3.18 we need more than upstream has: a seal is answered when
 * it is decided, by another thread than the ring's; see subprojects/packagefiles/libfuse3.
 */
#ifdef FUSE_URING_REPLIES_ANYWHERE
#define LIBFUSE_CAP_OVER_IO_URING FUSE_CAP_OVER_IO_URING
#else
#define LIBFUSE_CAP_OVER_IO_URING 0
#endif

#ifdef HAVE_FUSE_KILL_SUIDGID
#define LIBFUSE_CAP_KILLPRIV_V2 FUSE_CAP_HANDLE_KILLPRIV_V2
#else
#define LIBFUSE_CAP_KILLPRIV_V2 0
#endif

/**
 * file_info_kills_priv() - does this request ask to drop the set-id bits?
 * Context: any.
 */
static inline bool file_info_kills_priv(const struct fuse_file_info *fi)
{
#ifdef HAVE_FUSE_KILL_SUIDGID
	return fi->kill_suidgid;
#else
	(void)fi;
	return false;
#endif
}
