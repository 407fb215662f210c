# SPDX-License-Identifier: MIT
# Completion of cachet(1) for bash. Verbs and options are asked of the program itself.

_cachet() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
	local program=${COMP_WORDS[0]} i words= done=

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		words=$("$program" --help 2>/dev/null | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p')
		COMPREPLY=($(compgen -W "$words --help --version" -- "$word"))
		return
	fi
	for ((i = 2; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} != -- ]] || done=1
	done
	if [[ $done ]]; then
		compopt -o default 2>/dev/null
		COMPREPLY=($(compgen -c -- "$word"))
		return
	fi
	case $before in
	--seals | -s)
		done=${word%"${word##*,}"}
		COMPREPLY=($(compgen -P "$done" -W "seal shrink grow write future_write exec all" \
			-- "${word##*,}"))
		compopt -o nospace 2>/dev/null
		return
		;;
	--wait | -w)
		COMPREPLY=($(compgen -W forever -- "$word"))
		return
		;;
	--direct)
		COMPREPLY=($(compgen -W "auto always never" -- "$word"))
		return
		;;
	--offset | --length | --label | --ttl | --interval | --count | -i | -n)
		[[ $before == -n && $verb == put ]] || return
		;;
	esac
	if [[ $word == -* ]]; then
		words=$("$program" "$verb" --help 2>/dev/null |
			grep -oE -- '(^|[^[:alnum:]-])--[a-z][a-z-]*' | grep -oE -- '--[a-z-]+' | sort -u)
		COMPREPLY=($(compgen -W "$words --help" -- "$word"))
		return
	fi
	compopt -o default 2>/dev/null
}

complete -F _cachet cachet
