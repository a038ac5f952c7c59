# ar or ranlib, with no clock, owner or mode in what it writes.
# toolchain sets before this: real, the program.
case ${0##*/} in
  *ranlib*)
    for word do
      shift
      [ "$word" = -U ] || set -- "$@" "$word"
    done
    exec "$real" -D "$@" ;;
esac
case ${1-} in
  --* | @*) ;;
  *[qrdms]*)
    letters=$1
    shift
    while :; do
      case $letters in
        *U*) letters=${letters%%U*}${letters#*U} ;;
        *) break ;;
      esac
    done
    set -- "${letters}D" "$@" ;;
esac
exec "$real" "$@"
