# A compiler, with the flags that keep folders and chance out of what it writes.
# toolchain sets before this: real, the compiler; root, the workspace; markers, a script for sed; and it puts the
# prefix maps that are known beforehand in place of PREFIX_MAPS.
take= out= src= cuda= preprocess= machine= seen=/
for word do
  if [ "$take" ]; then
    out=$word take=
  else
    case $word in
      -o) take=1 ;;
      -E) preprocess=1 ;;
      -D__CUDACC__) cuda=1 ;;
      -march=native | -mtune=native | -mcpu=native | -Wl,--build-id=uuid) machine=1 ;;
      -*) ;;
      *.*) src=$word ;;
    esac
  fi
  # Folders right below the one for temporary files have random names.
  case $word in
    *"$root"/tmp/?*)
      name=${word#*"$root"/tmp/} name=${name%%/*}
      case $seen in */"$name"/*) ;; *) seen=$seen$name/ ;; esac ;;
  esac
done

if [ "$machine" ]; then
  count=$#
  while [ "$count" -gt 0 ]; do
    word=$1 count=$((count - 1))
    shift
    case $word in
      -march=native | -mtune=native | -mcpu=native | -Wl,--build-id=uuid)
        echo "reprobuild: left out $word, with which the wheel would be another one on another machine" >&2 ;;
      *) set -- "$@" "$word" ;;
    esac
  done
fi

# The same for the same source and name of an output, whatever folder they lie in: it may end up in debug information.
stable() {
  case $1 in
    "$PWD"/*) name=${1#"$PWD"/} ;;
    "$root"/tmp/*/*) name=${1#"$root"/tmp/*/} ;;
    "$root"/tmp/*) name=tmp ;;
    "$root"/*) name=${1#"$root"/} ;;
    *) name=$1 ;;
  esac
}
stable "$src" && seed=$name
stable "$out" && seed=$seed:${name##*/}

# gcc takes the last map that fits, so the most general comes first; and a map of the user's comes after all of them.
case $PWD in
  "$root"/src*/.* | "$root"/asked*/.*) set -- "-ffile-prefix-map=$PWD=/reprobuild/work" "$@" ;;
  / | "$root" | "$root"/src | "$root"/src/* | "$root"/asked | "$root"/asked/*) ;;
  *) set -- "-ffile-prefix-map=$PWD=/reprobuild/work" "$@" ;;
esac
while [ "$seen" != / ]; do
  seen=${seen#/} name=${seen%%/*} seen=/${seen#*/}
  set -- "-ffile-prefix-map=$root/tmp/$name=/reprobuild/tmp" "$@"
done
set -- PREFIX_MAPS "-frandom-seed=$seed" "$@"

# nvcc hands the preprocessed source to its own compilers, which know no prefix maps and add the folder to relative names.
if [ "$cuda" ] && [ "$preprocess" ] && [ "$out" ]; then
  "$real" "$@" || exit
  stable "$PWD"
  case $name in *[!A-Za-z0-9_./+-]*) name=work ;; esac
  markers="$markers;s|^\\(# [0-9]* \"\\)\\([^/<\"]\\)|\\1/reprobuild/$name/\\2|"
  [ ! -f "$out" ] || exec sed -i "$markers" "$out"
  exit 0
fi
exec "$real" "$@"
