/* SPDX-License-Identifier: MIT */
/*
 * The protocol of write seals: requests, writers, pins, the last step, the hand-over.
 *
 * It follows daemon/seal/sealing.c and daemon/cache/pinning.c. What those do under the inode's lock
 * is one atomic step here; between two steps anything may happen. Names are those of the sources.
 *
 * The processes WITH_WRITER, WITH_PINNER and WITH_OWNER (two at a time are enough work for a check)
 * meet a Sealer, who is always there.
 *
 * Each BUG_... leaves out or misplaces one step; check.py sees to it that every one of them is
 * found, so that "no errors" for the model as it stands means something.
 *
 *	BUG_ADMIT		opens go through while the memory is asked
 *	BUG_COUNT_AFTER_REPLY	a writer is counted after its open was answered
 *	BUG_NO_DENY		the last step does not deny writers: a pin's window slips in
 *	BUG_NO_RERUN		a wake-up that comes while requests are looked at is forgotten
 *	BUG_NO_WAKE_RELEASE	a RELEASE wakes nobody
 *	BUG_NO_WAKE_REFUSED	a pin that was refused half-way wakes nobody
 *	BUG_WAKE_EARLY		an unpin wakes before the counts fell
 *	BUG_NO_RESUME		those who wait for an outcome are not told
 *	BUG_KEEP_DENIED		writers stay denied after a refusal
 *	BUG_NO_POLL		what only the memory knows is not asked for again
 *	BUG_POLL_IN_VAIN	... or the time for that never comes
 *	BUG_PREPARED_FOREVER	a hand-over that is never committed is never forgotten
 *	BUG_NO_TIMER		nobody looks at deadlines
 */

#define REQUESTS 2	/* request 0: add a seal; request 1: PREPARE, later COMMIT */
#define SEALER 0
#define HANDOVER 1

/* Who waits for the outcome of a seal before it may write. */
#define ADMISSIONS 3
#define WRITER 0
#define PINNER 1
#define OWNER 2

mtype = { WAITING, GRANTED, BUSY, INTERRUPTED, REFUSED };
mtype:verb = { ADD, PREPARE, COMMIT };
mtype:reply = { ADMITTED, LATER, SEALED };

/* What the daemon knows. */
byte nr_writers;
short writable;			/* mapping_map_writable(); -1: denied */
byte pinned;			/* folios with pins */
bool sealed;
bool asking;
bool running, queued, rerun;
bool prepared;
bool timer;
bool waits[ADMISSIONS];		/* in sealing->admissions */
bool resumed[ADMISSIONS];

/* A request. */
mtype state[REQUESTS];
mtype:verb verb[REQUESTS];
bool finite[REQUESTS];		/* it has a deadline */
bool due[REQUESTS];		/* which has passed */
bool asked[REQUESTS];
bool retry[REQUESTS];		/* it waits for its back-off */
bool stop[REQUESTS];		/* interrupted by a signal */

/* What only the kernel knows. */
byte can_write;			/* handles that can map the memory writable, as clients see it */
byte window;			/* writable windows of the daemon */
byte registered;		/* pages that our ring holds */
byte foreign;			/* mappings and references of clients */
bool memory_sealed;

#define may_be_pinned (pinned > 0)
#define has_time(r) (state[r] == WAITING && (retry[r] || finite[r]))
#define somebody_arrived (waits[WRITER] || waits[PINNER] || waits[OWNER])
#define somebody_waits (state[SEALER] == WAITING || state[HANDOVER] == WAITING)

inline kick()
{
	if
	:: running ->
#ifndef BUG_NO_RERUN
		rerun = true
#else
		skip
#endif
	:: else -> running = true; queued = true
	fi
}

inline wake()
{
	if
	:: somebody_waits -> kick()
	:: else -> skip
	fi
}

inline finish(r, result)
{
	if
	:: verb[r] == COMMIT -> prepared = false
	:: else -> skip
	fi;
	state[r] = result;
	finished = true
}

/* Writers and pins that are in the way of request r; the outcome is in "hindered". */
inline look(r)
{
	hindered = false;
	if
	:: sealed -> skip	/* nothing is left to be wanted */
	:: else ->
		if
		:: verb[r] == PREPARE && prepared -> hindered = true
		:: verb[r] == PREPARE && nr_writers > 1 -> hindered = true
		:: verb[r] != PREPARE && nr_writers > 0 -> hindered = true
		:: else -> hindered = may_be_pinned
		fi
	fi
}

/* End request r if it must end, or choose it if its last step can be tried. */
inline consider(r)
{
	if
	:: state[r] == WAITING && chosen == REQUESTS ->
		look(r);
		if
		:: stop[r] -> finish(r, INTERRUPTED)
		:: !stop[r] && verb[r] == COMMIT && !prepared -> finish(r, REFUSED)
		:: else ->
			if
			:: due[r] && (hindered || asked[r]) -> finish(r, BUSY)
			:: !hindered && !retry[r] && !(due[r] && asked[r]) &&
			   !(verb[r] == PREPARE && somebody_arrived) -> chosen = r
			:: else -> skip
			fi
		fi
	:: else -> skip
	fi
}

inline try_later(r)
{
	asked[r] = true;
	retry[r] = true
}

inline resume(who)
{
	if
	:: waits[who] -> told = true; waits[who] = false; resumed[who] = true
	:: else -> skip
	fi
}

/* sealing_run(), on the pool. */
active proctype Runner()
{
	byte chosen;
	bool hindered, finished, tried, deny, granted, told;

end:	do
	:: atomic { queued -> queued = false };
again:		atomic { rerun = false; finished = false; tried = false };
		atomic {
			chosen = REQUESTS;
			consider(SEALER);
			consider(HANDOVER);
			hindered = false
		};
		if
		:: chosen == REQUESTS -> skip
		:: chosen < REQUESTS && verb[chosen] == PREPARE ->
			atomic { asking = true };
			/* /proc is read here: it shows mappings, not references of the kernel */
			atomic {
				asking = false;
				look(chosen);
				if
				:: hindered -> try_later(chosen)
				:: else -> prepared = true; finish(chosen, GRANTED)
				fi;
				hindered = false;
				tried = true
			}
		:: else ->
			atomic {
#ifndef BUG_NO_DENY
				deny = !sealed;
#endif
				if
				:: deny && writable > 0 ->
					try_later(chosen);
					deny = false;
					tried = true;
					goto tell
				:: deny && writable <= 0 -> writable = -1
				:: else -> skip
				fi;
				asking = true
			};
			atomic {
				granted = sealed ||
					(window == 0 && registered == 0 && foreign == 0);
				memory_sealed = memory_sealed || granted
			};
			atomic {
				asking = false;
				if
				:: granted -> sealed = true; finish(chosen, GRANTED)
				:: else ->
#ifndef BUG_KEEP_DENIED
					if
					:: deny -> writable = 0
					:: else -> skip
					fi;
#endif
					try_later(chosen)
				fi;
				deny = false; granted = false; tried = true
			}
		fi;
tell:		atomic {
			told = false;
			if
			:: !prepared ->
				d_step {
#ifndef BUG_NO_RESUME
					resume(WRITER);
					resume(PINNER);
					resume(OWNER);
#endif
					skip
				}
			:: else -> skip
			fi;
			if
			:: finished || tried || told || rerun ->
				finished = false; tried = false; told = false;
				goto again
			:: else -> skip
			fi;
			timer = prepared || has_time(SEALER) || has_time(HANDOVER);
			running = false
		}
	od
}

#ifndef BUG_POLL_IN_VAIN
#define STILL false
#else
#define STILL true
#endif

/* sealing_on_timer(): a back-off, a deadline, or the end of what was prepared. */
#ifndef BUG_NO_TIMER
active proctype Timer()
{
end:	do
#ifndef BUG_NO_POLL
	:: atomic { timer && state[SEALER] == WAITING && retry[SEALER] ->
		retry[SEALER] = STILL; timer = false; kick() }
	:: atomic { timer && state[HANDOVER] == WAITING && retry[HANDOVER] ->
		retry[HANDOVER] = STILL; timer = false; kick() }
#endif
	:: atomic { timer && state[SEALER] == WAITING && finite[SEALER] ->
		due[SEALER] = true; retry[SEALER] = false; timer = false; kick() }
	:: atomic { timer && state[HANDOVER] == WAITING && finite[HANDOVER] ->
		due[HANDOVER] = true; retry[HANDOVER] = false; timer = false; kick() }
#ifndef BUG_PREPARED_FOREVER
	:: atomic { timer && prepared && state[HANDOVER] != WAITING ->
		prepared = false; timer = false; kick() }
#endif
	od
}
#endif

/* sealing_admit_writer_locked() for "who"; the outcome is in "answer". */
inline admit(who)
{
	if
	:: sealed -> answer = SEALED
	:: !sealed && (asking || prepared) ->
#ifndef BUG_ADMIT
		waits[who] = true; answer = LATER
#else
		answer = ADMITTED
#endif
	:: else -> answer = ADMITTED
	fi
}

inline add_writer()
{
#ifndef BUG_ADMIT
	assert(writable >= 0);
#endif
	if
	:: writable >= 0 -> writable++
	:: else -> skip
	fi;
	nr_writers++
}

inline remove_writer()
{
	nr_writers--;
	if
	:: writable > 0 -> writable--
	:: else -> skip
	fi;
#ifndef BUG_NO_WAKE_RELEASE
	wake()
#endif
}

/*
 * open(O_RDWR). The kernel lets the client use the handle once it has the reply, and takes it away
 * before it sends RELEASE.
 */
inline open_writer(who)
{
	do
	:: atomic {
		admit(who);
		if
		:: answer == SEALED -> break
		:: answer == LATER -> skip
		:: answer == ADMITTED ->
#ifndef BUG_COUNT_AFTER_REPLY
			add_writer();
#endif
			break
		fi
	   };
	   atomic { resumed[who] -> resumed[who] = false }
	od;
	if
	:: answer == ADMITTED ->
		atomic { can_write++ };
#ifdef BUG_COUNT_AFTER_REPLY
		atomic { add_writer() }
#endif
	:: else -> skip
	fi
}

#ifdef WITH_WRITER
/* A client that writes: its mapping may outlive its handle. */
active proctype Writer()
{
	mtype:reply answer;
	bool maps;

	open_writer(WRITER);
	if
	:: answer == ADMITTED ->
		if
		:: atomic { foreign++; maps = true }
		:: skip
		fi;
		atomic { can_write-- };
		atomic { remove_writer() };
		if
		:: maps -> atomic { foreign-- }	/* nobody tells the daemon */
		:: else -> skip
		fi
	:: else -> assert(sealed)
	fi
}
#endif

#ifdef WITH_PINNER
/* pin_table_add(), then the release. */
active proctype Pinner()
{
	mtype:reply answer;
	bool held;

ask:	atomic {
		admit(PINNER);
		if
		:: answer == SEALED -> goto refused
		:: answer == LATER -> skip
		:: answer == ADMITTED -> goto admitted
		fi
	};
	atomic { resumed[PINNER] -> resumed[PINNER] = false };
	goto ask;

admitted:
	atomic {
		if
		:: writable < 0 -> goto ask	/* a seal's last step began meanwhile */
		:: else -> writable++
		fi
	};
	atomic { pinned++ };
	if
	:: atomic { !memory_sealed -> window++ };
		if
		:: atomic { registered++; held = true }
		:: skip			/* the table is full, or a limit was reached */
		fi;
		atomic { window-- }
	:: atomic { memory_sealed -> assert(false) }	/* we count as a writer: it cannot be */
	fi;
	atomic {
		writable--;
		if
		:: held -> skip
		:: else -> pinned--
		fi
	};
	if
	:: held ->
		atomic { registered-- };
#ifndef BUG_WAKE_EARLY
		atomic { pinned-- };
		atomic { wake() }
#else
		atomic { wake() };
		atomic { pinned-- }
#endif
	:: else ->
#ifndef BUG_NO_WAKE_REFUSED
		atomic { wake() }
#else
		skip
#endif
	fi;
	goto done;
refused:
	assert(sealed);
done:
	skip
}
#endif

inline submit(r, v)
{
	verb[r] = v;
	state[r] = WAITING;
	asked[r] = false; retry[r] = false; due[r] = false;
	kick()
}

/* Somebody who may seal through a descriptor that is open for reading. */
active proctype Sealer()
{
	if
	:: finite[SEALER] = true
	:: skip
	fi;
	atomic { submit(SEALER, ADD) };
	if
	:: atomic { state[SEALER] == WAITING -> stop[SEALER] = true; kick() }
	:: skip
	fi;
	(state[SEALER] != WAITING);
	assert(state[SEALER] == GRANTED || (state[SEALER] == BUSY && finite[SEALER]) ||
	       (state[SEALER] == INTERRUPTED && stop[SEALER]));
	assert(state[SEALER] != GRANTED || sealed)
}

#ifdef WITH_OWNER
/* cachet_add_seals() on a descriptor that is open for reading and writing. */
active proctype Owner()
{
	mtype:reply answer;

	open_writer(OWNER);
	if
	:: answer == ADMITTED ->
		finite[HANDOVER] = true;
		atomic { submit(HANDOVER, PREPARE) };
		(state[HANDOVER] != WAITING);
		if
		:: state[HANDOVER] == GRANTED ->
			/* dup3(): the read-only descriptor takes the place of the other */
			atomic { can_write-- };
			atomic { remove_writer() };
			if
			:: atomic { submit(HANDOVER, COMMIT) };
				(state[HANDOVER] != WAITING);
				assert(state[HANDOVER] != GRANTED || sealed);
				if
				:: state[HANDOVER] == GRANTED -> skip
				:: else ->	/* a read-write descriptor is put back */
					open_writer(OWNER);
					if
					:: answer == ADMITTED ->
						atomic { can_write-- };
						atomic { remove_writer() }
					:: else -> assert(sealed)
					fi
				fi
			:: skip		/* killed: nobody is held off for ever */
			fi
		:: else ->
			atomic { can_write-- };
			atomic { remove_writer() }
		fi
	:: else -> assert(sealed)
	fi
}


#endif

/* Once the seal is granted nobody can write, through whatever way, ever again. */
ltl safe { [] (sealed -> (can_write == 0 && window == 0 && registered == 0 && foreign == 0)) }

/* Every request ends. (That every process ends is what the search for dead ends shows.) */
ltl ends { [] (state[SEALER] == WAITING -> <> (state[SEALER] != WAITING)) }
